"""The StableHLO text, and every operation on SPU's own runtime against its float meaning."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import run
from op_cases import CASES, claims, numbered
from small_graphs import Maker

from mpcc.backends.spu.families import RULES
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.backends.spu.writer import Writer
from mpcc.compiler.errors import InternalError, UnsupportedError
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import SPU, from_torch

GENERATOR = torch.Generator().manual_seed(5)


def spread(*shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=GENERATOR)


def one(op: str, *tensors: torch.Tensor, **attrs: object) -> tuple[Graph, dict[str, torch.Tensor]]:
    """A graph of one operation; its first operand is the client's, all are secret."""
    m = Maker()
    values = {f"x{i}": t for i, t in enumerate(tensors)}
    names = [m.input(name, t.shape, from_torch(t.dtype)) for name, t in values.items()]
    return infer(m.graph(y=m.op("y", op, *names, **attrs)), {}), values


def error(op: str, *tensors: torch.Tensor, protocol: str = "aby3", **attrs: object) -> float:
    graph, values = one(op, *tensors, **attrs)
    wanted = outputs_of(graph, run_graph(graph, values, {}))["y"].numpy()
    program = emit_stablehlo(graph)
    got = run(program, {k: v.float().numpy() for k, v in values.items()}, protocol)["y"]
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


def test_operations_that_claim_a_form_have_one():
    assert set(RULES) == {op for op in REGISTRY if SPU in claims(op)}


def test_forms_read_declared_statistics_only():
    for op, rule in RULES.items():
        assert set(rule.reads) <= set(REGISTRY[op].statistics), op


def test_a_form_says_which_statistics_it_reads():
    graph, _ = one("layer_norm", spread(4, 24), eps=1e-5, affine="none")
    with pytest.raises(InternalError, match="layer_norm reads spread"):
        Writer().statistic(graph["y"], "spread")


@pytest.mark.spu
@pytest.mark.parametrize(("op", "number"), numbered(SPU))
def test_operation(op, number):
    torch.manual_seed(zlib.crc32(f"{op}{number}".encode()))
    case = CASES[op][number]
    assert error(op, *case.operands(), **case.attrs) <= case.spu


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
    x = spread(4, 64, scale=1000)
    graph, values = one("layer_norm", x, eps=1e-5, affine="none")
    bound = 2.0 ** np.ceil(np.log2(8 * float((x - x.mean(-1, keepdim=True)).square().sum(-1).max())))
    got = run(emit_stablehlo(graph, {"y": bound}), {"x0": x.numpy()})["y"]
    assert np.abs(got - run_graph(graph, values, {})["y"].numpy()).max() <= 3e-3


@pytest.mark.spu
def test_the_runtime_is_found_beside_a_folder_of_its_name():
    """tests/spu lies on the path of the tests; the wheel is what counts."""
    from mpcc.runtime.spu import party as spu_party

    assert hasattr(spu_party.engine(), "RuntimeWrapper")
