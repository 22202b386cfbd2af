"""Is every choice of the user one that there is? All of it is checked before any work is done."""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.cost import network_of
from mpcc.compiler.driver.options import EVERY_PASS, PROFILES, SWITCHABLE, Options
from mpcc.compiler.errors import MpccError
from mpcc.compiler.protocols import protocol_of
from mpcc.compiler.types import LABEL
from mpcc.passes.graph.change_model import check_choices
from mpcc.passes.graph.choose_outputs import OUTPUTS

LARGEST_FRAC_BITS = 30  # of what is revealed


def check_options(options: Options) -> Options:
    """The options with network and truncation filled in.

    Raises:
        MpccError: an unknown choice; the message says what is known.
    """
    truncation = options.truncation or protocol_of(options.protocol).truncation
    known = {"profile": tuple(PROFILES), "output": OUTPUTS}
    for key, allowed in known.items():
        _check_choice(key, getattr(options, key), allowed)
    _check_choice("truncation", truncation, ("probabilistic", "nearest"))
    if options.output_frac_bits is not None:
        _check_rounding(options.output, options.output_frac_bits)
    check_choices(options.approximations or {})
    for name in sorted(options.without):
        if name not in SWITCHABLE:
            raise MpccError(f"the pass {name} cannot be left out", todo=f"choose from: {', '.join(SWITCHABLE)}")
    for name in sorted(options.print_after):
        if name not in (*EVERY_PASS, "all"):
            raise MpccError(f"there is no pass {name}", todo=f"choose from: all, {', '.join(EVERY_PASS)}")
    return replace(options, network=network_of(options.network), truncation=truncation)


def _check_rounding(output: str, frac_bits: int) -> None:
    if output == LABEL:
        raise MpccError("a label is a whole number: there is nothing to round", todo="leave out output_frac_bits")
    if not 0 <= frac_bits <= LARGEST_FRAC_BITS:
        raise MpccError(f"output_frac_bits {frac_bits} is not one from 0 to {LARGEST_FRAC_BITS}")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MpccError(f"unknown {key} {value!r}", todo=f"choose one of: {', '.join(allowed)}")
