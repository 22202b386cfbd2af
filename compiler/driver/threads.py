"""PyTorch and NumPy each keep threads that wait for work by spinning; on busy cores they take time from one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """While this lasts PyTorch computes in one thread: what the compiler gives it is small, the emulator is NumPy's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
