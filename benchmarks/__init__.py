"""Measured comparisons with what else runs PyTorch models on MP-SPDZ; see docs/performance.md."""
