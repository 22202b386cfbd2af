"""The StableHLO text, and every operation on SPU's own runtime against its float meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import run
from small_graphs import Maker

from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.compiler.errors import UnsupportedError
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.visibility import infer

GENERATOR = torch.Generator().manual_seed(5)


def spread(*shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=GENERATOR)


def positive(*shape: int) -> torch.Tensor:
    return 0.5 + 8 * torch.rand(shape, generator=GENERATOR)


def one(op: str, *tensors: torch.Tensor, **attrs: object) -> tuple[Graph, dict[str, torch.Tensor]]:
    """A graph of one operation; its first operand is the client's, all are secret."""
    m = Maker()
    values = {f"x{i}": t for i, t in enumerate(tensors)}
    names = [m.input(name, t.shape) for name, t in values.items()]
    return infer(m.graph(y=m.op("y", op, *names, **attrs)), {}), values


def error(op: str, *tensors: torch.Tensor, protocol: str = "aby3", **attrs: object) -> float:
    graph, values = one(op, *tensors, **attrs)
    wanted = outputs_of(graph, run_graph(graph, values, {}))["y"].numpy()
    program = emit_stablehlo(graph)
    got = run(program, {k: v.numpy() for k, v in values.items()}, protocol)["y"]
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max())


def test_text(request):
    """Constants are bits of floats, which the golden fixture would round: compared here as they are."""
    m = Maker()
    x = m.op("half", "scale", m.input("x", (2, 3)), factor=0.5)
    y = m.op("dense", "linear", x, m.param("secret.weight", 4, 3), m.param("public.bias", 4))
    graph = infer(m.graph(out=m.op("top", "softmax", y, dim=1)), {"secret.weight": "provider", "public.bias": "public"})
    program = emit_stablehlo(graph)
    path = Path(__file__).parent.parent / "golden" / "spu_stablehlo.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(program.text, "utf-8")
    assert program.text == path.read_text("utf-8"), "if the change is meant, run pytest --update-golden"
    assert "weight" not in program.text and "top" not in program.text
    assert [(i.tensor, i.owner, i.secret) for i in program.inputs] == [
        ("x", "client", True),
        ("secret.weight", "provider", True),
        ("public.bias", "public", False),
    ]


def test_unknown_operation_is_refused():
    graph, _ = one("cumsum", spread(2, 3), dim=1)
    with pytest.raises(UnsupportedError, match="cumsum"):
        emit_stablehlo(graph)


CASES = [
    ("add", (spread(4, 3), spread(3)), {}, 1e-4),
    ("sub", (spread(4, 1), spread(1, 3)), {}, 1e-4),
    ("mul", (spread(4, 3), spread(3)), {}, 1e-3),
    ("div", (spread(4, 3), positive(4, 3)), {}, 3e-3),
    ("scale", (spread(4, 3),), {"factor": -0.001}, 2e-5),
    ("shift", (spread(4, 3),), {"offset": 2.5}, 1e-4),
    ("square", (spread(4, 3),), {}, 1e-3),
    ("linear", (spread(2, 5, 6), spread(3, 6), spread(3)), {}, 3e-3),
    ("linear", (spread(6), spread(3, 6)), {}, 3e-3),
    ("linear_diagonal", (spread(2, 5, 6), spread(2, 5, 4), spread(4, 8), spread(4)), {"block": 2}, 3e-3),
    ("linear_diagonal", (spread(5, 6), spread(5, 4), spread(4, 7)), {"block": 1}, 3e-3),
    ("matmul", (spread(2, 1, 4, 6), spread(3, 6, 2)), {}, 3e-3),
    ("matmul", (spread(2, 4, 6), spread(6, 2)), {}, 3e-3),
    ("softmax", (spread(3, 8, scale=10),), {"dim": 1}, 1e-3),
    ("softmax", (spread(8, 3),), {"dim": 0}, 1e-3),
    ("attention", (spread(2, 2, 5, 4), spread(2, 2, 5, 4), spread(2, 2, 5, 4)), {"scale": 0.5, "mask": "none"}, 3e-3),
    ("layer_norm", (spread(4, 24),), {"eps": 1e-5, "affine": "none"}, 3e-3),
    ("layer_norm", (spread(4, 24), spread(24), spread(24)), {"eps": 1e-5, "affine": "gamma_beta"}, 2e-2),
    ("rms_norm", (spread(4, 24), spread(24)), {"eps": 1e-6, "gain": 1.0}, 2e-2),
    ("rms_norm", (spread(4, 24),), {"eps": 1e-6, "gain": 0.25}, 3e-3),
    ("gelu", (spread(300),), {"approximate": "none"}, 2e-3),
    ("gelu", (spread(300),), {"approximate": "tanh"}, 2e-3),
    ("tanh", (spread(300),), {}, 1e-3),
    ("sigmoid", (spread(300, scale=10),), {}, 1e-3),
    ("silu", (spread(300, scale=6),), {}, 3e-3),
    ("relu", (spread(300),), {}, 1e-4),
    ("exp", (-positive(300),), {}, 1e-3),
    ("reciprocal", (positive(300),), {}, 1e-3),
    ("rsqrt", (positive(300),), {}, 1e-3),
    ("sqrt", (positive(300),), {}, 5e-3),
    ("reshape", (spread(4, 6),), {"shape": (2, 12)}, 1e-4),
    ("permute", (spread(4, 6, 2),), {"dims": (2, 0, 1)}, 1e-4),
    ("expand", (spread(4, 1),), {"shape": (2, 4, 3)}, 1e-4),
    ("slice", (spread(4, 9),), {"dim": 1, "start": 1, "stop": 8, "step": 3}, 1e-4),
    ("concat", (spread(4, 2), spread(4, 3)), {"dim": 1}, 1e-4),
    ("sum", (spread(4, 5, 6),), {"dims": (0, 2), "keepdim": False}, 1e-3),
    ("sum", (spread(4, 5),), {"dims": (1,), "keepdim": True}, 1e-3),
    ("mean", (10 + spread(3, 500),), {"dims": (1,), "keepdim": False}, 2e-4),
    ("cast", (spread(4),), {"dtype": "f32"}, 1e-4),
]


@pytest.mark.spu
@pytest.mark.parametrize("op, tensors, attrs, allowed", CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_operation(op, tensors, attrs, allowed):
    assert error(op, *tensors, **attrs) <= allowed


@pytest.mark.spu
@pytest.mark.parametrize(
    "op, attrs",
    [("gelu", {"approximate": "none"}), ("gelu", {"approximate": "tanh"}), ("sigmoid", {}), ("tanh", {}), ("silu", {})],
)
def test_far_arguments(op, attrs):
    """Saturated functions stay saturated; nothing wraps around."""
    assert error(op, torch.tensor([-200.0, -60.0, -20.0, 0.0, 20.0, 60.0, 200.0]), **attrs) <= 2e-2


def attention(mask: torch.Tensor, kind: str, *more: torch.Tensor) -> float:
    m = Maker()
    values = {n: spread(2, 2, 5, 4) for n in "qkv"} | {"mask": mask} | {f"m{i}": t for i, t in enumerate(more)}
    types = {torch.bool: "bool", torch.float32: "f32"}
    names = [m.input(name, t.shape, types[t.dtype]) for name, t in values.items()]
    graph = infer(m.graph(y=m.op("y", "attention", *names, scale=0.5, mask=kind)), {})
    wanted = outputs_of(graph, run_graph(graph, values, {}))["y"].numpy()
    arrays = {k: v.to(torch.float32).clamp(-(2.0**15), 2.0**15).numpy() for k, v in values.items()}
    return float(np.abs(run(emit_stablehlo(graph), arrays)["y"] - wanted).max())


@pytest.mark.spu
def test_masks():
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    assert attention(causal, "keep") <= 3e-3
    assert attention(torch.zeros(5, 5).masked_fill(~causal, torch.finfo(torch.float32).min), "additive") <= 3e-3
    keep = torch.tensor([[1.0, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    anchor = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    assert attention(keep, "key", anchor) <= 3e-3


@pytest.mark.spu
def test_norm_of_large_rows_needs_bounds():
    """With the ring's bound, squares of rows around 1000 do not overflow."""
    from dataclasses import replace

    x = spread(4, 64, scale=1000)
    graph, values = one("layer_norm", x, eps=1e-5, affine="none")
    bound = 2.0 ** np.ceil(np.log2(8 * float((x - x.mean(-1, keepdim=True)).square().sum(-1).max())))
    graph = graph.with_nodes([replace(n, stats=(("sum_max", bound),)) if n.name == "y" else n for n in graph])
    got = run(emit_stablehlo(graph), {"x0": x.numpy()})["y"]
    assert np.abs(got - run_graph(graph, values, {})["y"].numpy()).max() <= 3e-3


@pytest.mark.spu
def test_the_runtime_is_found_beside_a_folder_of_its_name():
    """tests/spu lies on the path of the tests; the wheel is what counts."""
    from mpcc.runtime.spu import party as spu_party

    assert hasattr(spu_party.engine(), "RuntimeWrapper")
