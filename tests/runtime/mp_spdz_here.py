"""The mark of tests that need a real MP-SPDZ."""

import os

import pytest

HOME = os.environ.get("MP_SPDZ_HOME", "")


def needs_mp_spdz(test):
    """Marked mp_spdz, and skipped where there is none."""
    skip = pytest.mark.skipif(not HOME, reason="MP_SPDZ_HOME is not set: there is no MP-SPDZ to run")
    return pytest.mark.mp_spdz(skip(test))
