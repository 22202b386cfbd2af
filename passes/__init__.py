"""Passes over the graph IR and the ring IR: one pure function per file."""
