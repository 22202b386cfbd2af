"""Small programs in which public values and constants stand where shares usually do."""

from primitives import public, secret

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType

SMALL, LARGE = RingType((2,), 8, 2.0), RingType((2,), 8, 10.0)


def in_loop(initial, invariant):
    """x <- x + c, twice; the operands are made by functions of the builder."""

    def build(b):
        fixed = invariant(b)
        inner = Builder(prefix="i")
        x, c = inner.arg("carried", 0, LARGE), inner.arg("invariant", 0, fixed.type)
        body = inner.graph([("x", inner.add(x, c, bound=10.0))])
        return {"y": b.repeat([initial(b)], [fixed], body, 2)[0]}

    return build


def small_secret(b):
    return secret(b, shape=(2,), bound=1.0)


def doubled_public(b):
    p = public(b, shape=(2,), bound=1.0)
    return b.add(p, p)


def gathered_public(b):
    """A computed public value that is needed in another order is spilled into an array of shares."""
    p = public(b)
    return {"y": b.add(secret(b), b.expand(b.sum(b.add(p, p), 1), (2, 3, 4)))}


def ones(b, shape=(2, 3, 4)):
    return b.const(1.0, shape, 8)


PROGRAMS = {
    "gathered_public": gathered_public,
    "constant_in_matmul": lambda b: {"y": b.matmul(secret(b, shape=(2, 3)), ones(b, (3, 2)))},
    "constant_in_dot": lambda b: {"y": b.dot(secret(b), ones(b))},
    "public_in_dot": lambda b: {"y": b.dot(secret(b), public(b))},
    "sum_of_constant": lambda b: {"y": b.add(secret(b, shape=(2, 1, 4)), b.sum(ones(b), 1))},
    "constants_only": lambda b: {"y": b.lt_zero(b.sub(ones(b), ones(b)))},
    "times_zero": lambda b: {"y": b.mul_int(secret(b), 0)},
    "concat_with_constant": lambda b: {"y": b.concat([secret(b), ones(b)], 1)},
    "concat_with_public": lambda b: {"y": b.concat([secret(b), public(b)], 1)},
    "reveal_of_public": lambda b: {"y": b.add(public(b), public(b, "q"))},
    "compare_public": lambda b: {"y": b.lt_zero(public(b))},
    "truncate_public": lambda b: {"y": b.rescale(b.mul(public(b), public(b, "q")), 8)},
    "carried_constant": in_loop(lambda b: ones(b, (2,)), small_secret),
    "carried_public": in_loop(lambda b: public(b, shape=(2,), bound=1.0), small_secret),
    "invariant_constant": in_loop(small_secret, lambda b: ones(b, (2,))),
    "invariant_public": in_loop(small_secret, doubled_public),
}
