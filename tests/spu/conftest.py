"""Everything here needs SPU; without the wheel it is skipped, except what is marked otherwise."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # in_process


def _missing() -> bool:
    try:
        importlib.metadata.version("spu")
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _missing():
        reason = pytest.mark.skip(reason="SPU is not installed: pip install mpcc[spu]")
        for item in items:
            if item.get_closest_marker("spu"):
                item.add_marker(reason)
