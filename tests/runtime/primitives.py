"""Small programs that use every primitive of the ring IR in every form that the emitter distinguishes."""

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType


def secret(b, name="x", shape=(2, 3, 4), frac_bits=8, bound=100.0):
    return b.input(name, shape, frac_bits, bound, "client")


def computed(b, *args, **kwargs):
    """A value in a register, not in memory."""
    x = secret(b, *args, **kwargs)
    return b.add(x, x)


def public(b, name="p", shape=(2, 3, 4), frac_bits=8, bound=100.0):
    return b.input(name, shape, frac_bits, bound, "public")


def linear(b):
    x, y, p = secret(b), secret(b, "y"), public(b)
    return {
        "add": b.add(x, y),
        "sub": b.sub(x, y),
        "public": b.add(x, p),
        "public_first": b.sub(p, x),
        "constant": b.add_const(x, 1.5),
        "from_constant": b.const_sub(-2.25, x),
        "times": b.mul_int(x, -7),
        "power": b.scale(x, 0.25, 8),
        "factor": b.scale(x, 0.3, 10),
        "negative": b.neg(b.add(x, y)),
        "again": b.add(x, x),
    }


def publics(b):
    """Operations on public values alone, and of their results on secret ones."""
    x, p = secret(b), public(b)
    q = b.add(p, b.param(("c",), (2, 3, 4), 8, 50.0, public=True))
    return {
        "sum": b.add(b.sum(x, 0), b.sum(q, 0)),
        "product": b.mul(x, b.mul(p, q)),
        "summed": b.add(b.sum(x, 1), b.sum(p, 1)),
        "permuted": b.add(b.permute(x, (2, 0, 1)), b.permute(p, (2, 0, 1))),
        "sliced": b.mul(b.slice(x, 1, 1, 3), b.slice(p, 1, 0, 2)),
        "negated": b.add(x, b.mul_int(q, -3)),
        "joined": b.add(b.concat([x, x], 0), b.concat([q, p], 0)),
    }


def sums(make_value):
    def build(b):
        x = make_value(b)
        t = b.permute(x, (2, 0, 1))
        return {
            **{f"s{d}": b.sum(x, d) for d in range(3)},
            **{f"t{d}": b.sum(t, d) for d in range(3)},
            "twice": b.sum(b.sum(x, 2), 0),
            "sliced": b.sum(b.slice(x, 2, 1, 4), 2),
            "expanded": b.sum(b.expand(b.sum(x, 1), (2, 5, 4)), 1),
        }

    return build


def layouts(make_value):
    def build(b):
        x = make_value(b)
        y = secret(b, "y")
        t = b.permute(x, (1, 2, 0))
        return {
            "same": x,
            "permuted": t,
            "reshaped": b.reshape(x, (6, 4)),
            "turned_then_reshaped": b.reshape(t, (12, 2)),
            "merged": b.reshape(t, (3, 8)),
            "split": b.permute(b.reshape(x, (2, 3, 2, 2)), (0, 2, 1, 3)),
            "first": b.slice(x, 0, 0, 1),
            "middle": b.slice(x, 1, 1, 3),
            "last": b.slice(x, 2, 3, 4),
            "strided": b.slice(x, 2, 0, 4, 2),
            "slice_of_turned": b.slice(t, 1, 1, 4),
            "slice_of_slice": b.slice(b.slice(x, 1, 1, 3), 2, 1, 3),
            "expanded": b.expand(b.slice(x, 1, 1, 2), (2, 5, 4)),
            "wider": b.expand(b.slice(x, 0, 1, 2), (3, 3, 4)),
            "scalar": b.expand(b.reshape(b.sum(b.sum(b.sum(x, 0), 1), 2), (1,)), (3, 2)),
            "concat0": b.concat([x, y], 0),
            "concat1": b.concat([x, t_like(b, x), y], 1),
            "concat2": b.concat([y, x], 2),
            "mixed": b.add(b.permute(x, (1, 0, 2)), b.permute(y, (1, 0, 2))),
            "broadcast": b.sub(x, b.expand(b.sum(x, 2), (2, 3, 4))),
            "expanded_reshape": b.reshape(b.expand(b.slice(x, 2, 0, 1), (2, 3, 4)), (6, 4)),
        }

    return build


def t_like(b, x):
    """A value of the same shape that lies in another order."""
    return b.permute(b.permute(b.add(x, x), (2, 1, 0)), (2, 1, 0))


def products(b):
    x, y, p = secret(b), secret(b, "y"), public(b)
    r = b.add(x, y)
    return {
        "mul": b.mul(x, y),
        "square": b.mul(r, r),
        "public": b.mul(r, p),
        "public_first": b.mul(p, x),
        "turned": b.mul(b.permute(x, (1, 0, 2)), b.permute(r, (1, 0, 2))),
        "expanded": b.mul(x, b.expand(b.sum(r, 1), (2, 3, 4))),
        "dot": b.dot(x, y),
        "dot_self": b.dot(r, r),
        "dot_mixed": b.dot(x, r),
        "dot_turned": b.dot(b.permute(r, (0, 2, 1)), b.permute(y, (0, 2, 1))),
        "dot_expanded": b.dot(x, b.expand(b.sum(y, 1), (2, 3, 4))),
    }


def matmuls(b):
    x, y = secret(b, shape=(3, 4), bound=10.0), secret(b, "y", shape=(4, 5), bound=10.0)
    batch, other = (secret(b, name, shape=(2, 2, 3, 4)) for name in ("batch", "other"))
    w = b.param(("w",), (4, 5), 8, 10.0, public=False)
    c = b.param(("c",), (4, 5), 8, 10.0, public=True)
    p = public(b, shape=(4, 5))
    r = b.add(x, x)
    heads = b.permute(b.reshape(b.matmul(x, w), (3, 5, 1)), (1, 0, 2))
    return {
        "plain": b.matmul(x, y),
        "register": b.matmul(r, y),
        "weight": b.matmul(r, w),
        "public_weight": b.matmul(r, c),
        "public_input": b.matmul(x, p),
        "transposed": b.matmul(b.transpose(y), b.transpose(r)),
        "weight_first": b.matmul(b.transpose(w), b.transpose(x)),
        "public_first": b.matmul(b.transpose(c), b.transpose(r)),
        "batched": b.matmul(batch, b.transpose(other)),
        "batched_register": b.matmul(b.add(batch, other), b.transpose(batch)),
        "swapped": b.matmul(b.permute(batch, (1, 0, 2, 3)), b.transpose(b.permute(other, (1, 0, 2, 3)))),
        "heads": b.matmul(heads, b.transpose(heads)),
        "sliced": b.matmul(b.slice(x, 0, 1, 3), b.slice(y, 1, 1, 4)),
        "expanded": b.matmul(b.expand(b.reshape(x, (1, 3, 4)), (2, 3, 4)), b.reshape(batch, (2, 4, 6))),
        "chained": b.matmul(b.matmul(x, y), b.transpose(b.matmul(r, y))),
    }


def block_matmuls(b):
    x, y = secret(b, shape=(5, 3), bound=10.0), secret(b, "y", shape=(3, 5), bound=10.0)
    r = secret(b, "r", shape=(4, 3), bound=10.0)
    w = b.param(("w",), (4, 7), 8, 10.0, public=False)  # 5 columns that meet x, blocks of two
    z = secret(b, "z", shape=(4, 7), bound=10.0)
    joined = b.concat([x, r], 0)
    return {
        "weight": b.block_matmul(w, joined, 2),
        "secret": b.block_matmul(z, joined, 2),
        "register": b.block_matmul(b.add(z, z), b.add(joined, joined), 2),
        "turned": b.block_matmul(w, b.concat([b.transpose(y), b.add(r, r)], 0), 2),
        "diagonal": b.block_matmul(b.slice(z, 1, 0, 6), joined, 1),
        "one_block": b.block_matmul(b.concat([z, z], 1), b.concat([x, x, r], 0), 4),
    }


def truncations(b):
    outputs = {}
    for bits, frac_bits, bound in (
        (1, 8, 100.0),
        (8, 16, 2.0**30),
        (13, 20, 2.0**41),
        (16, 16, 2.0**45),
        (20, 40, 1.0),
        (31, 40, 2.0**20),
        (32, 40, 2.0**21),
        (40, 60, 1.5),
        (3, 3, 2.0**10),
    ):
        x = secret(b, f"x{bits}", (70,), frac_bits, bound)
        outputs[f"y{bits}"] = b.rescale(x, frac_bits - bits)
    grid = secret(b, "grid", (5, 6), 16, 1000.0)
    outputs["wide"] = b.rescale(b.permute(b.add(grid, grid), (1, 0)), 8)
    outputs["up"] = b.rescale(grid, 20)
    return outputs


LT_BITS = (2, 3, 4, 5, 8, 9, 12, 16, 17, 24, 31, 32, 33, 40, 48, 62, 63)


def comparisons(b):
    """Every width with its extreme values."""
    outputs = {}
    for bits in LT_BITS:
        x = secret(b, f"x{bits}", (66,), 0, 2.0 ** (bits - 1) - 1 if bits < 50 else 2.0 ** (bits - 1) * 0.999)
        node = b.lt_zero(x)
        assert node.int_attr("bits") == bits
        outputs[f"y{bits}"] = node
    grid = secret(b, "grid", (5, 6), 8, 100.0)
    outputs["turned"] = b.lt_zero(b.permute(b.sub(grid, b.mul_int(grid, 3)), (1, 0)))
    return outputs


def selections(b):
    x, y = secret(b), secret(b, "y")
    less = b.lt_zero(b.sub(x, y))
    p = public(b)
    return {
        "min": b.select(less, x, y),
        "max": b.select(less, y, x),
        "constant": b.select(less, x, b.const(0, (2, 3, 4), 8)),
        "public": b.select(less, p, x),
        "publics": b.select(less, p, b.const(1.0, (2, 3, 4), 8)),
        "turned": b.select(b.permute(less, (2, 1, 0)), b.permute(x, (2, 1, 0)), b.permute(y, (2, 1, 0))),
        "relu": b.mul(b.reinterpret(b.const_sub(1.0, b.lt_zero(x)), 0), x),
    }


def loop_body(count):
    """x, y <- (x W_i rescaled + c, x + public P_i * d rescaled), with arguments read in other orders too."""
    b = Builder(prefix="b")
    x, y = b.arg("carried", 0, RingType((2, 3), 12, 100.0)), b.arg("carried", 1, RingType((2, 3), 12, 100.0))
    c, d = b.arg("invariant", 0, RingType((2, 3), 12, 1.0)), b.arg("invariant", 1, RingType((2, 3), 12, 1.0))
    w = b.param(tuple(f"w{i}" for i in range(count)), (3, 3), 12, 0.3, public=False)
    v = b.param(tuple(f"v{i}" for i in range(count)), (2, 3), 12, 0.3, public=False)
    p = b.param(tuple(f"p{i}" for i in range(count)), (2, 3), 12, 0.3, public=True)
    first = b.add(b.rescale(b.matmul(x, w), 12), c)
    second = b.add(b.rescale(b.mul(d, p), 12), b.sub(x, v))
    third = b.select(b.lt_zero(second), first, b.transpose(b.transpose(y)))
    return b.graph([("x", b.add_const(third, 0.0, bound=100.0)), ("y", b.add_const(second, 0.0, bound=100.0))])


def loops(b):
    x = secret(b, shape=(2, 3), frac_bits=12, bound=1.0)
    c, d = secret(b, "c", (2, 3), 12, 1.0), b.permute(secret(b, "d", (3, 2), 12, 1.0), (1, 0))
    start = b.permute(b.reshape(b.add(c, c), (3, 2)), (1, 0))
    first, second = b.repeat([x, start], [c, d], loop_body(4), 4)
    again, _ = b.repeat([second, first], [d, c], loop_body_single(), 2)
    return {"x": first, "y": second, "again": again, "after": b.mul(first, b.add(second, x))}


def loop_body_single():
    """Carried values change places; a weight in common to no other loop."""
    b = Builder(prefix="s")
    x, y = b.arg("carried", 0, RingType((2, 3), 12, 100.0)), b.arg("carried", 1, RingType((2, 3), 12, 100.0))
    c = b.arg("invariant", 0, RingType((2, 3), 12, 1.0))
    q = b.param(("q0", "q1"), (2, 3), 12, 0.3, public=True)
    first, second = b.add(y, c, bound=100.0), b.add(x, q, bound=100.0)
    return b.graph([("x", first), ("y", second)])


PROGRAMS = {
    "linear": linear,
    "publics": publics,
    "sums_in_memory": sums(secret),
    "sums_in_registers": sums(computed),
    "layouts_in_memory": layouts(secret),
    "layouts_in_registers": layouts(computed),
    "products": products,
    "matmuls": matmuls,
    "block_matmuls": block_matmuls,
    "truncations": truncations,
    "comparisons": comparisons,
    "selections": selections,
    "loops": loops,
}
