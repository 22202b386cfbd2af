"""Attention and norms where real weights put them: wide scores, padded rows, variances that differ a thousandfold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness import MODES, one_op, run_lowered

from mpcc.compiler.approximations import APPROXIMATIONS
from mpcc.compiler.ops import REGISTRY

BATCH, HEADS, LENGTH, WIDTH = 2, 3, 9, 8
SCALE = WIDTH**-0.5
BOUND = 4e-3  # of a result for values up to 2: twice the share by which softmax may be off


def qkv(largest=3.0, seed=0):
    """Query, key and value whose largest scaled score is `largest`; scores of both signs in every row."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(BATCH, HEADS, LENGTH, WIDTH) for _ in range(3))
    k[..., 0, :] *= 2
    k[..., 1, :] = -0.9 * k[..., 0, :]
    q *= largest / float((q @ k.transpose(-1, -2) * SCALE).abs().max())
    return q, k, v.clamp(-2, 2)


def padded(kind):
    """keep [B, S]: the second row is padded on one side, or only one key of it is kept."""
    keep = torch.ones(BATCH, LENGTH)
    if kind == "right":
        keep[1, 5:] = 0
    elif kind == "left":
        keep[1, :4] = 0
    elif kind == "one key":
        keep[1] = 0
        keep[1, 3] = 1
    elif kind == "holes":
        keep[:, 1::2] = 0
    return keep


def anchor(keep):
    return REGISTRY["first_kept"].reference([keep], {})


def masked(kind, keep):
    """(mask operands, attribute mask, positions that are whole) of one way to write the mask."""
    full = keep[:, None, None, :].expand(BATCH, 1, LENGTH, LENGTH).bool()
    if kind == "key":
        return [keep, anchor(keep)], (3, 4)
    if kind == "keep":
        return [full], ()
    if kind == "additive":
        return [torch.where(full, 0.0, -50.0)], ()
    return [], ()


def attend(operands, kind, mode, whole=(), calibration=None, settings=None, op="attention"):
    graph, inputs, tensors = one_op(op, operands, {"scale": SCALE, "mask": kind}, whole=whole)
    return run_lowered(graph, inputs, tensors, mode=mode, calibration=calibration or [], settings=settings)


def reference(q, k, v, keep=None):
    scores = q.double() @ k.double().transpose(-1, -2) * SCALE
    if keep is not None:
        scores = scores.masked_fill(keep[:, None, None, :] == 0, -torch.inf)
    return (torch.softmax(scores, -1) @ v.double()).numpy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", ["none", "right", "one key", "holes"])
@pytest.mark.parametrize("form", ["2relu", "2quad"])
def test_relu_and_quad_attention_leave_masked_keys_out(form, padding, mode):
    q, k, v = qkv()
    keep = padded(padding)
    extra, whole = masked("key", keep)
    got = attend([q, k, v, *extra], "key", mode, whole, op=f"attention_{form}")
    scores = q.double() @ k.double().transpose(-1, -2) * SCALE
    weights = ((scores + 5) ** 2 if form == "2quad" else scores.clamp(min=0)) * keep[:, None, None, :]
    want = (weights @ v.double()) / (2.0**-6 + weights.sum(-1, keepdim=True))
    assert np.abs(got - want.numpy()).max() < BOUND


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", ["none", "right", "left", "one key", "holes"])
@pytest.mark.parametrize("kind", ["key", "keep", "additive"])
def test_masks(kind, padding, mode):
    q, k, v = qkv()
    keep = padded(padding)
    extra, whole = masked(kind, keep)
    got = attend([q, k, v, *extra], kind, mode, whole)
    assert np.abs(got - reference(q, k, v, keep)).max() < BOUND


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["none", "key", "keep"])
@pytest.mark.parametrize("largest", [0.01, 8.0, 42.0])
def test_scores_as_large_as_real_ones(largest, kind, mode):
    """MiniLM's first layer: |score| up to 42, up to 78 between the entries of a row."""
    q, k, v = qkv(largest)
    keep = padded("right")
    extra, whole = masked(kind, keep)
    got = attend([q, k, v, *extra], kind, mode, whole)
    scores = q @ k.transpose(-1, -2) * SCALE
    assert largest < 42 or float((scores.amax(-1) - scores.amin(-1)).max()) > 70
    assert np.abs(got - reference(q, k, v, None if kind == "none" else keep)).max() < BOUND


@pytest.mark.parametrize("garbage", [0.0, 30.0])
def test_masked_keys_and_values_do_not_matter(garbage):
    """What stands at padded positions changes nothing, not even the calibrated ranges of what is kept."""
    q, k, v = qkv()
    keep = padded("left")
    dropped = (keep == 0)[:, None, :, None]
    changed = [q, torch.where(dropped, torch.full_like(k, garbage), k), torch.where(dropped, -v, v)]
    extra, whole = masked("key", keep)
    got = attend([*changed, *extra], "key", "nearest", whole)
    assert np.abs(got - reference(q, k, v, keep)).max() < BOUND


def test_masks_that_differ_between_queries():
    q, k, v = qkv()
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    graph, inputs, tensors = one_op("attention", [q, k, v, causal], {"scale": SCALE, "mask": "keep"})
    expected = REGISTRY["attention"].reference([q, k, v, causal], {"scale": SCALE, "mask": "keep"}).numpy()
    assert np.abs(run_lowered(graph, inputs, tensors, mode="nearest") - expected).max() < BOUND


def test_a_mask_that_calibration_has_not_seen():
    q, k, v = qkv()
    seen = {"x0": q, "x1": k, "x2": v, "x3": padded("none"), "x4": anchor(padded("none"))}
    keep = padded("one key")
    got = attend([q, k, v, keep, anchor(keep)], "key", "probabilistic", (3, 4), [seen])
    assert np.abs(got - reference(q, k, v, keep)).max() < BOUND


@pytest.mark.parametrize("length", [1, 2, 33])
def test_lengths(length):
    torch.manual_seed(length)
    q, k, v = (torch.randn(1, 2, length, 5).clamp(-2, 2) for _ in range(3))
    got = attend([q, k, v], "none", "probabilistic")
    assert np.abs(got - reference(q, k, v)).max() < BOUND


ERROR = APPROXIMATIONS["layer_norm"].error_bound(24)
ULP = 2.0**-16


def norm(x, mode, op="layer_norm", calibration=()):
    attrs = {"eps": 1e-12, "affine": "none"} if op == "layer_norm" else {"eps": 1e-12, "gain": 1.0}
    graph, inputs, tensors = one_op(op, [x], attrs)
    exact = REGISTRY[op].reference([torch.round(x.double() / ULP) * ULP], attrs).numpy()
    got = run_lowered(graph, inputs, tensors, mode=mode, calibration=[{"x0": c} for c in calibration])
    return got, exact


def allowed(x, exact):
    """The declared relative error of the root, an ulp of the result, an ulp of the mean divided by the deviation."""
    deviation = x.double().std(-1, unbiased=False, keepdim=True).numpy()
    return ERROR * np.maximum(1, np.abs(exact)) + 2 * ULP + 2 * ULP * (1 + np.abs(exact)) / deviation


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_variance_that_spans_a_factor_of_a_thousand(op, mode):
    torch.manual_seed(0)
    deviations = torch.logspace(-0.5, 1.0, 24)[:, None]  # variances 0.1 to 100
    x = torch.randn(24, 32) * deviations
    got, exact = norm(x, mode, op)
    error = np.abs(got - exact)
    assert (error <= allowed(x, exact)).all()
    assert error.max() >= ERROR / 20


@pytest.mark.parametrize("mode", MODES)
def test_outlier_features(mode):
    """One feature of 224 beside ordinary ones: its row has a variance of 131 and normalises it to about sqrt(width)."""
    torch.manual_seed(1)
    x = torch.randn(8, 384)
    x[:4, 7] = torch.tensor([224.0, -200.0, 120.0, 60.0])
    got, exact = norm(x, mode)
    assert np.abs(exact).max() > 19
    assert (np.abs(got - exact) <= allowed(x, exact)).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("eps", [1e-12, 1e-5])
def test_constant_rows_become_beta(eps, mode):
    x = torch.randn(4, 16)
    x[2] = 3.25
    gamma, beta = torch.rand(16) + 0.5, torch.randn(16)
    operands, attrs = [x, gamma, beta], {"eps": eps, "affine": "gamma_beta"}
    graph, inputs, tensors = one_op("layer_norm", operands, attrs, weights=(1, 2))
    got = run_lowered(graph, inputs, tensors, mode=mode)
    expected = REGISTRY["layer_norm"].reference(operands, attrs).numpy()
    assert np.abs(got[2] - beta.numpy()).max() < 1e-3
    assert np.abs(got - expected).max() < 1e-3


def test_variances_a_quarter_and_four_times_the_calibrated_ones():
    torch.manual_seed(2)
    x = torch.randn(6, 32)
    got, exact = norm(torch.cat([x / 2, x * 2]), "probabilistic", calibration=[torch.cat([x, x * 4])])
    assert (np.abs(got - exact) <= allowed(torch.cat([x / 2, x * 2]), exact)).all()
