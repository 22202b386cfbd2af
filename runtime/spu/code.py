"""What SPU runs of a program: every role makes it of the graph inside MPC, and none receives it."""

from __future__ import annotations

from mpcc.backends.spu.norm_sums import largest_sums
from mpcc.backends.spu.program import StableHlo
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.compiler.bundle.contents import MPC
from mpcc.compiler.bundle.manifest import COPY_AGAIN
from mpcc.compiler.errors import BundleError, EngineError, InternalError
from mpcc.runtime.deployment import Deployment


def code_of(program: Deployment) -> StableHlo:
    """StableHLO of the graph inside MPC; the ring program knows some magnitudes.

    Raises:
        UnsupportedError: as `emit_stablehlo`.
        EngineError: the program keeps a state in the session.
        BundleError: the graph, which was received, is none that a compiler made.
    """
    if program.later or any(node.op in ("state", "keep") for node in program.mpc):
        raise EngineError(
            "SPU keeps no shares between requests, which this program needs", todo="run it with --engine mp-spdz"
        )
    try:
        return emit_stablehlo(program.mpc, largest_sums(program.mpc, program.ring))
    except (InternalError, LookupError, ValueError, TypeError) as error:
        said = str(error)[:300] if isinstance(error, InternalError) else type(error).__name__
        raise BundleError(f"the graph is not a program: {said}", where=MPC, todo=COPY_AGAIN) from None
