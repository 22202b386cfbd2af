"""What SPU runs of a program: every role makes it of the graph inside MPC, and none receives it."""

from __future__ import annotations

from mpcc.backends.spu.norm_sums import largest_sums
from mpcc.backends.spu.program import StableHlo
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.runtime.deployment import Deployment


def code_of(program: Deployment) -> StableHlo:
    """StableHLO of the graph inside MPC; the ring knows some magnitudes. UnsupportedError as `emit_stablehlo`."""
    return emit_stablehlo(program.mpc, largest_sums(program.mpc, program.ring))
