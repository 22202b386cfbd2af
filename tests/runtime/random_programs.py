"""Random small ring programs. What chooses is given from outside: hypothesis, or a seeded generator."""

from __future__ import annotations

import math

from mpcc.compiler.errors import RangeError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType

SHAPES = [(5,), (2, 3), (3, 2), (2, 2, 3), (1, 4), (3, 1, 2), (2, 1, 2, 2)]
MAX_ELEMENTS = 48
LARGEST_FRAC = 24


class Generator:
    """Builds one program; `pick(list)` chooses an element."""

    def __init__(self, pick):
        self.pick = pick
        self.builder = Builder()
        self.counter = 0

    def program(self, steps):
        """A build function's result: the outputs of a random program."""
        b = self.builder
        shape = self.pick(SHAPES)
        self.pool = [b.input("x", shape, 8, 6.0, "client"), b.input("y", self.pick([shape, *SHAPES]), 8, 6.0, "client")]
        self.public = b.input("p", shape, 8, 6.0, "public")
        for _ in range(steps):
            try:
                node = getattr(self, self.pick(OPERATIONS))(self.pick(self.pool))
            except RangeError:
                continue
            if node is not None and 0 < node.type.elements <= MAX_ELEMENTS:
                self.pool.append(node)
        return {f"o{i}": node for i, node in enumerate(self.pool[-4:])}

    def partner(self, a):
        """Another value with the shape and scale of `a` (or `a` itself)."""
        same = [n for n in self.pool if n.type.shape == a.type.shape and n.type.frac_bits == a.type.frac_bits]
        if self.public.type.shape == a.type.shape and self.public.type.frac_bits == a.type.frac_bits:
            same.append(self.public)
        return self.pick(same)

    def dim(self, a):
        return self.pick(list(range(len(a.type.shape))))

    # ** arithmetic **
    def add(self, a):
        return self.builder.add(a, self.partner(a))

    def sub(self, a):
        return self.builder.sub(self.partner(a), a)

    def constant(self, a):
        return self.builder.const_sub(1.5, a) if self.pick([True, False]) else self.builder.add_const(a, -0.75)

    def scaled(self, a):
        return self.builder.scale(a, self.pick([2.0, -0.5, 0.3, -1.0]), 8)

    def total(self, a):
        return self.builder.sum(a, self.dim(a))

    def mul(self, a):
        return self.builder.mul(a, self.partner(a))

    def dot(self, a):
        return self.builder.dot(a, self.secret_partner(a))

    def secret_partner(self, a):
        partner = self.partner(a)
        return a if partner.type.public else partner

    def matmul(self, a):
        if len(a.type.shape) < 2:
            return None
        b, other = self.builder, self.secret_partner(a)
        return b.matmul(a, b.transpose(other)) if self.pick([True, False]) else b.matmul(b.transpose(other), a)

    def weighted(self, a):
        if len(a.type.shape) != 2:
            return None
        return self.builder.matmul(a, self.param((a.type.shape[1], 3), 1))

    def blocks(self, a):
        if len(a.type.shape) != 2:
            return None
        b, rows = self.builder, a.type.shape[0]
        block = self.pick([n for n in (1, 2, 3) if rows % n == 0])
        weight = self.param((rows, rows + block), 1)
        return b.block_matmul(weight, b.concat([a, b.add(a, a)], 0), block)

    def param(self, shape, count):
        self.counter += 1
        names = tuple(f"w{self.counter}_{i}" for i in range(count))
        return self.builder.param(names, shape, 8, 2.0, public=self.pick([True, False]))

    def rescale(self, a):
        if a.type.frac_bits < 2:
            return None
        bits = self.pick([f for f in (0, 1, 8, 12, 16) if f < a.type.frac_bits] or [0])
        return self.builder.rescale(a, min(bits, LARGEST_FRAC))

    # ** comparisons **
    def compare(self, a):
        return self.builder.lt_zero(a) if a.type.int_bits else None

    def select(self, a):
        other = self.secret_partner(a)
        return self.builder.select(self.builder.lt_zero(self.builder.sub(a, other)), a, self.partner(a))

    # ** layout **
    def reshape(self, a):
        n = a.type.elements
        shapes = [(n,), (1, n), *((d, n // d) for d in range(2, n) if n % d == 0)]
        return self.builder.reshape(a, self.pick(shapes))

    def permute(self, a):
        dims = list(range(len(a.type.shape)))
        turned = []
        while dims:
            turned.append(dims.pop(dims.index(self.pick(dims))))
        return self.builder.permute(a, tuple(turned))

    def slice(self, a):
        dim = self.dim(a)
        size = a.type.shape[dim]
        start = self.pick(list(range(size)))
        stop = self.pick(list(range(start + 1, size + 1)))
        return self.builder.slice(a, dim, start, stop, self.pick([1, 1, 2]))

    def expand(self, a):
        ones = [d for d, s in enumerate(a.type.shape) if s == 1]
        if not ones:
            return self.builder.expand(a, (2, *a.type.shape))
        dim = self.pick(ones)
        return self.builder.expand(a, tuple(3 if d == dim else s for d, s in enumerate(a.type.shape)))

    def concat(self, a):
        return self.builder.concat([a, self.secret_partner(a)], self.dim(a))

    # ** loops **
    def loop(self, a):
        """x, y <- y, x + c * w_i, brought back to the scale and bound that they had."""
        t = a.type
        if t.frac_bits > LARGEST_FRAC or math.ldexp(t.bound, t.frac_bits) > 2.0**30:
            return None
        other, count = self.secret_partner(a), self.pick([1, 2, 3])
        bound = (max(t.bound, other.type.bound) + 1) * 30
        carried, fixed = RingType(t.shape, t.frac_bits, bound), RingType(t.shape, t.frac_bits, t.bound)
        self.counter += 1
        inner = Builder(prefix=f"l{self.counter}_")
        x, y, c = inner.arg("carried", 0, carried), inner.arg("carried", 1, carried), inner.arg("invariant", 0, fixed)
        names = tuple(f"w{self.counter}_{i}" for i in range(count))
        w = inner.param(names, t.shape, 8, 2.0, public=self.pick([True, False]))
        step = inner.rescale(inner.mul(c, w), t.frac_bits)
        second = inner.add(x, step, bound=bound)
        body = inner.graph([("x", inner.mul_int(y, -1)), ("y", second)])
        return self.pick(self.builder.repeat([a, other], [self.partner_in_loop(a)], body, count))

    def partner_in_loop(self, a):
        return a


OPERATIONS = [
    "add",
    "sub",
    "constant",
    "scaled",
    "total",
    "mul",
    "dot",
    "matmul",
    "weighted",
    "blocks",
    "rescale",
    "rescale",
    "compare",
    "select",
    "reshape",
    "permute",
    "permute",
    "slice",
    "expand",
    "concat",
    "loop",
]


def random_graph(pick, steps):
    generator = Generator(pick)
    outputs = generator.program(steps)
    b = generator.builder
    return b.graph([(name, b.reveal(value, name)) for name, value in outputs.items()])
