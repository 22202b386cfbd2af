"""Non-linear functions built from ring primitives."""
