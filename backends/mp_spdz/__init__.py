"""MP-SPDZ source."""
