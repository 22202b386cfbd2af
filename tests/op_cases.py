"""The one table of cases: every operation of the registry, as used by the tests of its reference and its forms.

tests/frontend/test_ops.py holds the reference and the shape rule to `expected`, tests/lowering/test_every_op.py the
lowering and tests/spu/test_emitter.py the StableHLO form to the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from op_operands import (
    attended,
    bit,
    far,
    ids,
    keep,
    kept,
    key_masks,
    massive,
    pos,
    qkv,
    quad,
    r,
    rms,
    scores,
    seen_and_kept,
    seen_masks,
    shared,
)
from torch.nn import functional as F

from mpcc.compiler.approximations.softmax import softmax_2quad_error, softmax_2relu_error, softmax_error
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import RING, SPU

Operands = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One use of an operation.

    `operands` makes the inputs anew from torch's seed; `expected` computes of them, by other means than the reference,
    what it must give (None: only types are compared). In the ring those at the positions `weights` are parameters.
    `ring` is the largest error there as a share of max(1, |y|), at 16 fractional bits; `spu` the largest one on SPU.
    A case that is `clear` has integers, booleans, masks or a state and runs on no back end.
    """

    operands: Callable[[], Operands]
    attrs: Mapping[str, object] = field(default_factory=dict)
    expected: Callable[..., torch.Tensor] | None = None
    weights: tuple[int, ...] = ()
    ring: float = 4e-5
    spu: float = 1e-3
    clear: bool = False


BERT = {"eps": 1e-12, "affine": "gamma_beta"}
NO_MASK = {"scale": 0.4, "mask": "none"}

CASES: dict[str, list[Case]] = {
    "linear": [
        Case(
            lambda: [r(2, 5, 12), r(7, 12, scale=0.3), r(7)],
            {},
            lambda x, w, b: x @ w.T + b,
            (1, 2),
            ring=1e-4,
            spu=3e-3,
        ),
        Case(lambda: [r(12), r(7, 12, scale=0.3)], {}, lambda x, w: w @ x, (1,), ring=1e-4, spu=3e-3),
        Case(lambda: [r(1, 3), r(1, 3), r(1)], {}, lambda x, w, b: x @ w.T + b, (1, 2), ring=1e-4, spu=3e-3),
    ],
    "linear_diagonal": [
        Case(
            lambda: [r(2, 5, 12), r(2, 5, 8), r(8, 14, scale=0.3), r(8)],
            {"block": 2},
            lambda x, q, w, b: x @ w[:, :12].T + q @ torch.block_diag(*w[:, 12:].reshape(4, 2, 2)).T + b,
            (2, 3),
            ring=1e-4,
            spu=3e-3,
        ),
        Case(lambda: [r(3, 2), r(3, 4), r(4, 6, scale=0.3)], {"block": 4}, None, (2,), ring=1e-4, spu=3e-3),
        Case(
            lambda: [r(1, 5), r(1, 6), r(6, 6), r(6)],
            {"block": 1},
            lambda x, q, w, b: x @ w[:, :5].T + q * w[:, 5] + b,
            (2, 3),
            ring=1e-4,
            spu=3e-3,
        ),
    ],
    "matmul": [
        Case(lambda: [r(4, 6), r(6, 3)], {}, torch.mm, ring=1e-4, spu=3e-3),
        Case(lambda: [r(2, 1, 4, 6), r(3, 6, 2)], {}, lambda x, y: x @ y, ring=1e-4, spu=3e-3),
        Case(lambda: [r(3, 6), r(6, 4, scale=0.5)], {}, torch.mm, (1,), ring=1e-4, spu=3e-3),
        Case(lambda: [r(2, 4, 6), r(6, 2)], {}, lambda x, y: x @ y, ring=1e-4, spu=3e-3),
    ],
    "add": [
        Case(lambda: [r(2, 3, 4), r(4)], {}, lambda x, y: x + y, (1,), spu=1e-4),
        Case(lambda: [r(3, 1), r(2, 3, 4)], {}, lambda x, y: x + y, spu=1e-4),
        Case(lambda: [ids(2, 3), ids(2, 3)], {}, lambda x, y: x + y, clear=True),
        Case(lambda: [ids(2, 3), r(1)], {}, lambda x, y: x + y, clear=True),
    ],
    "sub": [
        Case(lambda: [r(2, 3, 4), r(3, 1)], {}, lambda x, y: x - y, spu=1e-4),
        Case(lambda: [r(4), r(2, 4)], {}, lambda x, y: x - y, (0,), spu=1e-4),
    ],
    "mul": [
        Case(lambda: [r(2, 3, 4), r(4)], {}, lambda x, y: x * y, (1,)),
        Case(lambda: [r(3, 1), r(1, 5)], {}, lambda x, y: x * y),
    ],
    "div": [
        Case(lambda: [r(2, 3, 4), far(4)], {}, lambda x, y: x / y, spu=3e-3),
        Case(lambda: [r(5), far(2, 1)], {}, lambda x, y: x / y, spu=3e-3),
        Case(lambda: [ids(3), ids(3) + 1], {}, None, clear=True),
    ],
    "scale": [
        *(
            Case(lambda: [r(3, 4)], {"factor": f}, lambda x, f=f: x * f, spu=max(2e-5, abs(f) * 1e-4))
            for f in (0.35355339059327373, -2.0, 0.25, 1e-3, -1e-3, -300.7, 3, 0.0)
        ),
        Case(lambda: [ids(2, 3)], {"factor": 2}, lambda x: x * 2, clear=True),
        Case(lambda: [ids(2, 3)], {"factor": 0.5}, lambda x: x * 0.5, clear=True),
        Case(lambda: [bit(3)], {"factor": -1}, None, clear=True),
    ],
    "shift": [
        Case(lambda: [r(3, 4)], {"offset": -1.23}, lambda x: x - 1.23, spu=1e-4),
        Case(lambda: [r(2)], {"offset": 1000}, lambda x: x + 1000, spu=1e-4),
        Case(lambda: [ids(2, 3)], {"offset": 3}, lambda x: x + 3, clear=True),
    ],
    "square": [
        Case(lambda: [r(3, 4, scale=10)], {}, lambda x: x * x, spu=5e-3),
        Case(lambda: [r(3, 4)], {}, lambda x: x * x),
        Case(lambda: [ids(2, 3)], {}, lambda x: x * x, clear=True),
    ],
    "where": [
        Case(lambda: [bit(2, 1, 4), r(3, 4), r(2, 3, 4)], {}, lambda c, x, y: torch.where(c, x, y)),
        Case(lambda: [bit(3), r(3), r(1)], {}, lambda c, x, y: torch.where(c, x, y), (1, 2)),
    ],
    "cast": [
        Case(lambda: [r(2, 3)], {"dtype": "f64"}, lambda x: x.double(), spu=1e-4),
        Case(lambda: [ids(2, 3)], {"dtype": "f32"}, lambda x: x.float(), clear=True),
        Case(lambda: [r(2, 3)], {"dtype": "bool"}, lambda x: x != 0, clear=True),
        Case(lambda: [bit(3, 4)], {"dtype": "i64"}, lambda x: x.long(), clear=True),
    ],
    "gelu": [
        Case(
            lambda: [r(3, 100)],
            {"approximate": "none"},
            lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
            ring=4e-4,
            spu=2e-3,
        ),
        Case(
            lambda: [r(3, 100)],
            {"approximate": "tanh"},
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            ring=4e-4,
            spu=2e-3,
        ),
    ],
    "soft_cap": [
        Case(lambda: [r(3, 100)], {"cap": 30.0}, lambda x: 30 * torch.tanh(x / 30), ring=5e-4, spu=5e-2),
        Case(lambda: [r(3, 100, scale=8)], {"cap": 10.0}, lambda x: 10 * torch.tanh(x / 10), ring=2e-3, spu=3e-2),
        Case(lambda: [r(3, 100, scale=8)], {"cap": 1.0}, torch.tanh, ring=1e-3, spu=3e-3),
    ],
    "gelu_quad": [Case(lambda: [r(3, 40)], {}, lambda x: x**2 / 8 + x / 4 + 0.5)],
    "tanh": [Case(lambda: [r(3, 100)], {}, torch.tanh, ring=7e-4)],
    "sigmoid": [
        Case(lambda: [r(3, 100)], {}, lambda x: 1 / (1 + torch.exp(-x)), ring=4e-4),
        Case(lambda: [r(3, 100, scale=10)], {}, lambda x: 1 / (1 + torch.exp(-x)), ring=4e-4),
    ],
    "silu": [Case(lambda: [r(3, 100, scale=4)], {}, lambda x: x / (1 + torch.exp(-x)), ring=1e-3, spu=3e-3)],
    "relu": [
        Case(lambda: [r(3, 100)], {}, lambda x: x.clamp(min=0), spu=1e-4),
        Case(lambda: [ids(2, 3)], {}, lambda x: x, clear=True),
    ],
    "leaky_relu": [
        Case(lambda: [r(3, 100)], {"slope": 0.01}, lambda x: torch.where(x < 0, 0.01 * x, x), spu=1e-4),
        Case(lambda: [r(3, 100)], {"slope": -1.5}, lambda x: torch.where(x < 0, -1.5 * x, x), spu=1e-3),
    ],
    "exp": [
        Case(lambda: [r(3, 40) / 2], {}, lambda x: math.e**x, ring=1.5e-3, spu=2e-2),
        Case(lambda: [-pos(100)], {}, lambda x: math.e**x, ring=1.5e-3),
        Case(lambda: [ids(2, 3)], {}, torch.exp, clear=True),
    ],
    "reciprocal": [
        Case(lambda: [far(3, 40)], {}, lambda x: 1 / x),
        Case(lambda: [far(7) * 40], {}, lambda x: 1 / x),
    ],
    "rsqrt": [Case(lambda: [far(3, 40)], {}, lambda x: x**-0.5)],
    "sqrt": [
        Case(lambda: [far(3, 40)], {}, lambda x: x**0.5, spu=5e-3),
        Case(lambda: [far(40) * 100], {}, lambda x: x**0.5, spu=5e-2),
    ],
    "softmax": [
        Case(lambda: [r(2, 3, 9)], {"dim": 2}, lambda x: F.softmax(x, -1), ring=softmax_error(16)),
        Case(lambda: [r(4, 5)], {"dim": 0}, lambda x: F.softmax(x, 0), ring=softmax_error(16)),
        Case(lambda: [r(3, 8, scale=10)], {"dim": 1}, lambda x: F.softmax(x, 1), ring=softmax_error(16)),
    ],
    "softmax_2quad": [
        Case(lambda: [r(2, 3, 9)], {"dim": 2}, lambda x: shared(quad(x)), ring=softmax_2quad_error(16)),
        Case(lambda: [r(4, 5)], {"dim": 0}, lambda x: shared(quad(x), 0), ring=softmax_2quad_error(16)),
    ],
    "softmax_2relu": [
        Case(lambda: [r(2, 3, 9)], {"dim": 2}, lambda x: shared(x.clamp(min=0)), ring=2 * softmax_2relu_error(16)),
        Case(lambda: [r(4, 5)], {"dim": 0}, lambda x: shared(x.clamp(min=0), 0), ring=2 * softmax_2relu_error(16)),
    ],
    "layer_norm": [
        Case(
            lambda: [r(3, 16), r(16), r(16)],
            BERT,
            lambda x, g, b: rms(x - x.mean(-1, keepdim=True), 1e-12) * g + b,
            (1, 2),
            ring=3e-4,
            spu=2e-2,
        ),
        Case(
            lambda: [r(2, 3, 24)],
            {"eps": 1e-5, "affine": "none"},
            lambda x: rms(x - x.mean(-1, keepdim=True), 1e-5),
            ring=3e-4,
            spu=3e-3,
        ),
        Case(
            lambda: [r(2, 8), r(8)],
            {"eps": 1e-5, "affine": "gamma"},
            lambda x, g: F.layer_norm(x, (8,), g),
            (1,),
            ring=3e-4,
            spu=2e-2,
        ),
        Case(
            lambda: [massive(2, 5, 16)],
            {"eps": 1e-2, "affine": "none", "lifted": (1, 6)},
            lambda x: rms(x - x.mean(-1, keepdim=True), 1e-2),
            ring=3e-4,
            spu=2e-2,
        ),
    ],
    "rms_norm": [
        Case(
            lambda: [r(3, 16), r(16)],
            {"eps": 1e-6, "gain": 0.25},
            lambda x, g: rms(x) * g * 0.25,
            (1,),
            ring=3e-4,
            spu=2e-2,
        ),
        Case(lambda: [r(3, 24)], {"eps": 1e-6, "gain": 1.7}, lambda x: rms(x) * 1.7, ring=3e-4, spu=3e-3),
        Case(
            lambda: [massive(2, 5, 16)],
            {"eps": 1e-2, "gain": 1.0, "lifted": (1, 6)},
            lambda x: rms(x, 1e-2),
            ring=3e-4,
            spu=2e-2,
        ),
    ],
    "attention": [
        Case(qkv, NO_MASK, lambda q, k, v: attended(q, k, v, 0.4), ring=4e-3, spu=3e-3),
        Case(
            lambda: [*qkv(), keep(2, 5)],
            {"scale": 0.3, "mask": "keep"},
            lambda q, k, v, m: attended(q, k, v, 0.3, kept(m)),
            clear=True,
        ),
        Case(
            lambda: [*qkv(), torch.ones(4, 5, dtype=torch.bool).tril(1)],
            {"scale": 0.5, "mask": "keep"},
            lambda q, k, v, m: attended(q, k, v, 0.5, kept(m)),
            clear=True,
        ),
        Case(
            lambda: [*qkv(), r(1, 1, 4, 5)],
            {"scale": 0.5, "mask": "additive"},
            lambda q, k, v, a: attended(q, k, v, 0.5, a),
            clear=True,
        ),
        Case(
            key_masks,
            {"scale": 0.3, "mask": "key"},
            lambda q, k, v, m, a: attended(q, k, v, 0.3, kept(m.bool()[:, None, None])),
            clear=True,
        ),
    ],
    "attention_seen": [
        Case(
            lambda: [*qkv(), torch.ones(1, 4, 5, dtype=torch.bool).tril(1)],
            {"scale": 0.4, "low": -3, "high": 1},
            lambda q, k, v, m: attended(q, k, v, 0.4, kept(m)),
            ring=4e-3,
            spu=3e-3,
        ),
        Case(
            lambda: [r(2, 2, 3, 4, 6), r(2, 2, 1, 5, 6), r(2, 2, 1, 5, 7), *seen_masks()],
            {"scale": 0.3, "low": -2, "high": 1, "cap": 3.0},
            lambda q, k, v, m, keep, *_: seen_and_kept(q, k, v, m & keep.bool()[:, None], 0.3, 3.0),
            clear=True,
        ),
    ],
    "attention_2quad": [
        Case(lambda: qkv(1.0), NO_MASK, lambda q, k, v: shared(quad(scores(q, k))) @ v, ring=4e-3, spu=3e-3),
        Case(
            key_masks,
            {"scale": 0.4, "mask": "key"},
            lambda q, k, v, m, a: shared(quad(scores(q, k)) * m[:, None, None]) @ v,
            ring=4e-3,
            spu=3e-3,
        ),
    ],
    "attention_2relu": [
        Case(lambda: qkv(1.0), NO_MASK, lambda q, k, v: shared(F.relu(scores(q, k))) @ v, ring=4e-3, spu=3e-3),
        Case(
            key_masks,
            {"scale": 0.4, "mask": "key"},
            lambda q, k, v, m, a: shared(F.relu(scores(q, k)) * m[:, None, None]) @ v,
            ring=4e-3,
            spu=3e-3,
        ),
    ],
    "reshape": [
        Case(lambda: [r(2, 3, 4)], {"shape": (6, 4)}, lambda x: x.view(6, 4), spu=1e-4),
        Case(lambda: [r(1, 1)], {"shape": ()}, lambda x: x[0, 0], spu=1e-4),
    ],
    "permute": [Case(lambda: [r(2, 3, 4)], {"dims": (2, 0, 1)}, lambda x: x.permute(2, 0, 1), spu=1e-4)],
    "expand": [
        Case(lambda: [r(3, 1)], {"shape": (2, 3, 4)}, lambda x: x.expand(2, 3, 4), spu=1e-4),
        Case(lambda: [bit(3, 1)], {"shape": (3, 4)}, lambda x: x.expand(3, 4), clear=True),
    ],
    "slice": [
        Case(lambda: [r(2, 3, 4)], {"dim": 1, "start": 1, "stop": 3, "step": 1}, lambda x: x[:, 1:3], spu=1e-4),
        Case(lambda: [r(9)], {"dim": 0, "start": 1, "stop": 8, "step": 3}, lambda x: x[1:8:3], spu=1e-4),
        Case(lambda: [r(2, 3)], {"dim": 0, "start": 2, "stop": 2, "step": 1}, lambda x: x[2:2], clear=True),
    ],
    "concat": [
        Case(lambda: [r(2, 3), r(2, 1), r(2, 4)], {"dim": 1}, lambda *x: torch.cat(x, 1), (1,), spu=1e-4),
        Case(lambda: [r(2, 3)], {"dim": 0}, lambda x: x, spu=1e-4),
    ],
    "sum": [
        Case(lambda: [r(2, 3, 4)], {"dims": (0, 2), "keepdim": False}, lambda x: x.sum((0, 2))),
        Case(lambda: [r(2, 5)], {"dims": (1,), "keepdim": True}, lambda x: x.sum(1, True)),
        Case(lambda: [r(2, 3)], {"dims": (), "keepdim": False}, lambda x: x),
        Case(lambda: [ids(2, 3)], {"dims": (0, 1), "keepdim": False}, lambda x: x.sum(), clear=True),
        Case(lambda: [bit(3, 4)], {"dims": (0,), "keepdim": False}, lambda x: x.sum(0), clear=True),
    ],
    "mean": [
        Case(lambda: [r(2, 7, 4)], {"dims": (1,), "keepdim": False}, lambda x: x.mean(1), spu=2e-4),
        Case(lambda: [r(2, 48)], {"dims": (1,), "keepdim": True}, lambda x: x.mean(1, True), spu=2e-4),
        Case(lambda: [r(2, 3)], {"dims": (), "keepdim": False}, lambda x: x, spu=2e-4),
        Case(lambda: [10 + r(3, 500)], {"dims": (1,), "keepdim": False}, lambda x: x.mean(1), spu=2e-4),
    ],
    "cumsum": [
        Case(lambda: [ids(2, 3)], {"dim": 1}, lambda x: x.cumsum(1)),
        Case(lambda: [r(2, 3)], {"dim": 0}, lambda x: x.cumsum(0)),
        Case(lambda: [bit(3, 4)], {"dim": 1}, lambda x: x.cumsum(1)),
    ],
    "argmax": [
        *(Case(lambda n=n: [r(3, n)], {}, lambda x: x.argmax(-1).float(), ring=1e-9, spu=1e-9) for n in (1, 2, 7, 37)),
        Case(lambda: [torch.tensor([-1.0, -0.5, -0.5])], {}, lambda x: torch.tensor(1.0), ring=1e-9, spu=1e-9),
    ],
    "round_nearest": [
        Case(
            lambda: [torch.tensor([0.25, -0.25, 0.1, 2.75])], {"frac_bits": 1}, lambda x: torch.tensor([0.5, 0, 0, 3])
        ),
        Case(lambda: [r(3, 4)], {"frac_bits": 20}, lambda x: x),
    ],
    "embedding": [
        Case(lambda: [r(5, 3), ids(2, 3)], {}, lambda t, i: t[i]),
        Case(lambda: [r(5, 3), torch.tensor(2)], {}, lambda t, i: t[i]),
    ],
    "pick": [
        Case(lambda: [r(2, 3, 4, 5), torch.tensor([3, 1])], {"dim": 2}, lambda x, i: x[[0, 1], :, i][:, :, None]),
        Case(lambda: [r(1, 4), torch.tensor([3, 1])], {"dim": 1}, lambda x, i: x[0, i][:, None]),
    ],
    "one_hot": [Case(lambda: [ids(2, 3)], {"classes": 5}, lambda i: F.one_hot(i, 5).float())],
    "eq": [Case(lambda: [ids(2, 3), ids(3)], {}, lambda x, y: x == y)],
    "ne": [Case(lambda: [ids(2, 3), torch.tensor(1)], {}, lambda x, y: x != y)],
    "ge": [Case(lambda: [r(3, 4), r(4)], {}, lambda x, y: x >= y)],
    "gt": [Case(lambda: [r(3, 4), r(4)], {}, lambda x, y: x > y)],
    "le": [Case(lambda: [r(3, 4), r(4)], {}, lambda x, y: x <= y)],
    "lt": [Case(lambda: [r(3, 4), r(4)], {}, lambda x, y: x < y)],
    "keep": [
        Case(
            lambda: [r(1, 2, 3, 4), torch.tensor([5])],
            {"bound": 8.0, "dim": 2, "entries": 9, "state": "key"},
            lambda x, at: x,
            clear=True,
        ),
    ],
    "first_kept": [
        Case(lambda: [torch.tensor([[0.0, 1, 1], [0, 0, 0]])], {}, lambda x: torch.tensor([[0.0, 1, 0], [0, 0, 0]]))
    ],
    "blank_rows": [
        Case(lambda: [torch.tensor([[0.0, 1]]), bit(2, 3, 2) | True], {}, lambda k, s: torch.zeros(2, 3)),
        Case(lambda: [torch.tensor([[0.0, 1]]), torch.eye(2)[None].bool()], {}, lambda k, s: torch.tensor([[1.0, 0]])),
    ],
    "logical_and": [Case(lambda: [bit(3, 4), bit(4)], {}, lambda x, y: x & y)],
    "logical_or": [Case(lambda: [bit(3, 4), bit(4)], {}, lambda x, y: x | y)],
    "logical_not": [Case(lambda: [bit(3, 4)], {}, lambda x: ~x)],
}


def numbered(back_end: str = "") -> list[tuple[str, int]]:
    """(operation, number) of every case, or of those that run on a back end which claims the operation."""
    assert back_end in ("", RING, SPU)
    return [
        (op, i)
        for op, cases in CASES.items()
        for i, case in enumerate(cases)
        if not back_end or (back_end in claims(op) and not case.clear)
    ]


def claims(op: str) -> tuple[str, ...]:
    """The back ends that must have a form of the operation."""
    declared = REGISTRY[op]
    return declared.back_ends if declared.secure else ()


def whole(operands: Operands) -> tuple[int, ...]:
    """Positions of floats that are 0 or 1 everywhere: masks, which the ring takes as whole numbers."""
    return tuple(i for i, t in enumerate(operands) if t.is_floating_point() and bool(((t == 0) | (t == 1)).all()))
