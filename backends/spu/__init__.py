"""StableHLO for SecretFlow SPU, from the MPC region of a program's graph."""

from mpcc.backends.spu.stablehlo import Input, Output, StableHlo, emit_stablehlo

__all__ = ["Input", "Output", "StableHlo", "emit_stablehlo"]
