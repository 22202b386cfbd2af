"""Which forms of a program are tried, and why each exists; compiler/driver/choose.py tries them.

Formats differ in precision and bytes. Variants trade rounds for bytes at equal precision, so which of them pays depends
on the network: a round costs half a round trip, whatever it carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from mpcc.compiler.driver.options import PROFILES, Options
from mpcc.compiler.errors import MpccError
from mpcc.compiler.lowering import Settings
from mpcc.passes.graph.cut import Regions

NARROW_INNER_FRAC_BITS = 15


@dataclass(frozen=True)
class Variant:
    """A form of the whole program: `change` makes it of other settings, `reason` says what it trades."""

    name: str
    reason: str
    change: Callable[[Settings], Settings]


def _with(**values: object) -> Callable[[Settings], Settings]:
    return lambda settings: replace(settings, **values)  # type: ignore[arg-type]


# Tried one after the other, each on top of those that were kept.
VARIANTS = (
    Variant(
        "roots: fewer steps",
        "1/sqrt(x) starts from more segments: a Newton step less for more comparisons",
        _with(root_start="fewer steps"),
    ),
    Variant(
        "roots: fewest steps",
        "1/sqrt(x) from as many segments as it takes to need no Newton step",
        _with(root_start="fewest steps"),
    ),
    Variant(
        "reciprocals: fewer steps",
        "1/x starts from more segments: a Newton step less for more comparisons",
        _with(reciprocal_start="fewer steps"),
    ),
    Variant(
        "reciprocals: fewest steps",
        "1/x from as many segments as it takes to need no Newton step",
        _with(reciprocal_start="fewest steps"),
    ),
    Variant(
        "row maximum by fours",
        "the maximum of a row from groups of four: half the levels, half as many comparisons again or more",
        _with(row_maximum_arity=4),
    ),
    Variant(
        "row maximum by eights",
        "the maximum of a row from groups of eight: a third of the levels, three times the comparisons",
        _with(row_maximum_arity=8),
    ),
    Variant(
        "row maximum of all pairs",
        "the maximum of a row in one level, from a comparison of every pair",
        _with(row_maximum_arity=1 << 20),
    ),
    Variant(
        "deferred truncations",
        "truncations are left out wherever the ring holds what stands between, also such "
        "as could be local: fewer of them, but safe ones, which take a round more",
        _with(defer_local=True),
    ),
)


def base_settings(options: Options, regions: Regions, tensors: Mapping[str, torch.Tensor]) -> Settings:
    """What the profile and the user's choices say."""
    profile = PROFILES[options.profile]
    return Settings(
        frac_bits=options.frac_bits or profile.frac_bits,
        weight_frac_bits=options.weight_frac_bits or profile.weight_frac_bits,
        lean=profile.lean and options.truncation != "nearest",
        wide=profile.wide,
        tight=profile.tight,
        inner_frac_bits=profile.inner_frac_bits,
        weight_bound=weight_bound(regions, tensors),
        truncation=options.truncation,
    )


def formats_for(options: Options, base: Settings) -> list[Variant]:
    """The formats to choose among, the most precise first.

    Where the failure budget allows few local truncations, as in large models, the lean forms only add truncations: then
    more bits, or few enough to leave out more truncations, cost less.
    """
    own = Variant("the profile's format", f"{base.frac_bits} fractional bits", lambda settings: settings)
    if not base.lean or options.frac_bits or options.weight_frac_bits:
        return [own]
    precise = PROFILES["safe"]
    wider = Variant(
        "more fractional bits",
        "truncations are safe, so that more of them can be left out",
        _with(
            lean=False,
            frac_bits=precise.frac_bits,
            weight_frac_bits=precise.weight_frac_bits,
            inner_frac_bits=precise.inner_frac_bits,
        ),
    )
    narrower = Variant(
        "fewer fractional bits",
        "smaller values: more truncations can be local or left out",
        _with(weight_frac_bits=base.weight_frac_bits - 1, inner_frac_bits=NARROW_INNER_FRAC_BITS),
    )
    return [wider, own, narrower]


def weight_bound(regions: Regions, tensors: Mapping[str, torch.Tensor]) -> float:
    """One power of two that bounds every weight inside MPC."""
    largest = 0.0
    for node in regions.mpc:
        if node.op in ("param", "constant"):
            tensor = tensors[str(node.attr("tensor"))]
            if tensor.is_floating_point() and tensor.numel():
                value = float(tensor.abs().max())
                if not math.isfinite(value):
                    raise MpccError(f"the weight {node.attr('tensor')} holds a value that is not finite")
                largest = max(largest, value)
    return 2.0 ** max(3, math.ceil(math.log2(largest)) if largest else 0)
