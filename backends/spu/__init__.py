"""StableHLO for SecretFlow SPU, from the MPC region of a program's graph (`stablehlo.emit_stablehlo`)."""
