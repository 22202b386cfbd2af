"""Attention whose queries see some keys only: causal, windows, a cache, groups of heads, padding on either side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from harness import MODES, one_op, run_lowered, scheduled

from mpcc.compiler.cost import estimate
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.families.attention_seen import MOST_BLOCKS, blocks_of
from mpcc.compiler.lowering.lower import lower
from mpcc.compiler.ops import REGISTRY

SCALE = 0.35


def band(queries, keys, low, high):
    away = torch.arange(keys)[None] - torch.arange(queries)[:, None]
    return (away >= low) & (away <= high)


def masks(kept, seen):
    keep = kept.float()
    anchor = REGISTRY["first_kept"].reference([keep], {})
    return [keep, anchor, REGISTRY["blank_rows"].reference([keep, seen], {})]


def operands(queries, keys, *, heads=(3,), shared=(3,), scale=1.0, batch=2):
    generator = torch.Generator().manual_seed(queries * 100 + keys)

    def r(*shape):
        return torch.randn(batch, *shape, generator=generator)

    return [r(*heads, queries, 6) * scale, r(*shared, keys, 6) * scale, r(*shared, keys, 5)]


CASES = {
    "causal": (operands(13, 13), (-12, 0), None),
    "causal, large scores": (operands(13, 13, scale=4.0), (-12, 0), None),
    "one group for all heads": (operands(9, 9, heads=(4,), shared=(1,)), (-8, 0), None),
    "groups, right padding": (operands(13, 13, heads=(2, 3), shared=(2, 1)), (-12, 0), lambda i: i < 9),
    "groups, left padding": (operands(13, 13, heads=(2, 3), shared=(2, 1), scale=3.0), (-12, 0), lambda i: i > 3),
    "window, left padding": (operands(23, 23), (-4, 0), lambda i: i > 5),
    "window, right padding": (operands(23, 23), (-4, 0), lambda i: i < 12),
    "three queries, a cache": (operands(3, 11), (-10, 8), lambda i: i != 2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_against_the_reference(case, mode):
    tensors, (low, high), kept = CASES[case]
    seen = band(tensors[0].shape[-2], tensors[1].shape[-2], low, high)[None]
    given = [*tensors, seen]
    read = torch.ones(2, seen.shape[1], dtype=torch.bool)
    if kept is not None:
        row = torch.tensor([kept(i) for i in range(seen.shape[-1])])
        given += masks(torch.stack([torch.ones_like(row), row]), seen)
        read[1] = row[-seen.shape[1] :]  # nobody reads the result of a masked query
    attrs = {"scale": SCALE, "low": low, "high": high}
    graph, inputs, store = one_op("attention_seen", given, attrs, whole=range(3, len(given)))
    want = REGISTRY["attention_seen"].reference(given, attrs).numpy()
    got = run_lowered(graph, inputs, store, mode=mode)
    assert np.isfinite(want).all()
    assert np.abs(got).max() < 2 * np.abs(want).max()
    error = np.abs(got - want).reshape(2, -1, *want.shape[-2:]).max((1, 3))
    assert error[read.numpy()].max() < 4e-3


def test_what_is_not_seen_may_be_anything():
    """Scores that no calibration input knew, of keys that are not seen, leave no trace in the result."""
    q, k, v = operands(5, 5, batch=1)
    seen = band(5, 5, -4, 0)[None]
    attrs = {"scale": SCALE, "low": -4, "high": 0}
    graph, inputs, store = one_op("attention_seen", [q, k, v, seen], attrs, whole=(3,))
    wild = {**inputs, "x1": inputs["x1"].clone()}
    wild["x1"][..., 4, :] *= 30.0
    wild["x0"] = inputs["x0"].clone()
    wild["x0"][..., 4, :] /= 30.0
    got = run_lowered(graph, wild, store, mode="nearest", calibration=[inputs, wild])
    want = REGISTRY["attention_seen"].reference([wild[f"x{i}"] for i in range(4)], attrs).numpy()
    assert np.abs(got - want).max() < 4e-3


@pytest.mark.parametrize(("queries", "keys", "low", "high"), [(128, 128, -127, 0), (13, 13, -3, 0), (3, 40, -2, 37)])
def test_blocks_cover_what_is_seen(queries, keys, low, high):
    blocks = blocks_of(queries, keys, low, high)
    covered = torch.zeros(queries, keys, dtype=torch.bool)
    for block in blocks:
        covered[block.start : block.stop, block.first : block.last] = True
    assert len(blocks) <= MOST_BLOCKS
    assert not (band(queries, keys, low, high) & ~covered).any()
    if queries == 128:
        assert covered.float().mean() < 0.6


def test_causal_attention_costs_less_than_attention_of_all_keys():
    q, k, v = operands(32, 32, batch=1)
    prices = {}
    for op, more, attrs in (
        ("attention", [], {"scale": SCALE, "mask": "none"}),
        ("attention_seen", [band(32, 32, -31, 0)[None]], {"scale": SCALE, "low": -31, "high": 0}),
    ):
        graph, inputs, store = one_op(op, [q, k, v, *more], attrs, whole=(3,))
        public = [replace(n.with_attrs(role="public"), visibility="public") if n.name == "x3" else n for n in graph]
        graph = graph.with_nodes(public)
        prices[op] = estimate(scheduled(lower(calibrate(graph, store, [inputs]), Settings()).ring), "ring")
    causal, full = prices["attention_seen"], prices["attention"]
    assert causal.bytes_online < 0.75 * full.bytes_online
    assert causal.rounds <= full.rounds
