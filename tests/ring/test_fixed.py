"""Encoding and decoding of fixed-point numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcc.compiler.errors import InputError, RangeError
from mpcc.compiler.fixed import decode, encode

SECRET = 1234567.890625


@given(st.floats(-1e6, 1e6), st.integers(0, 40))
def test_error_is_at_most_half_a_unit(x, frac_bits):
    value = encode(np.array([x]), frac_bits)
    assert value.dtype == np.int64
    assert abs(decode(value, frac_bits)[0] - x) <= 2.0 ** (-frac_bits - 1)


@given(st.integers(-(2**53), 2**53), st.integers(-4, 62))
def test_integers_survive_the_round_trip(v, frac_bits):
    assert encode(decode(np.array([v]), frac_bits), frac_bits)[0] == v


@given(st.integers(-1000, 1000))
def test_ties_go_to_even(n):
    assert encode(np.array(n + 0.5), 0) == n + n % 2


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_shape_is_kept(shape):
    assert encode(np.zeros(shape, dtype=np.float32), 8).shape == shape
    assert decode(np.zeros(shape, dtype=np.int64), 8).shape == shape


@pytest.mark.parametrize("x, frac_bits", [(SECRET, 42), (-SECRET, 60), (1e300, 100)])
def test_what_does_not_fit_is_refused_without_being_told(x, frac_bits):
    with pytest.raises(RangeError) as caught:
        encode(np.array([0.0, x]), frac_bits)
    assert "1234567" not in str(caught.value) and "e+" not in str(caught.value)


def test_the_limit_is_62_bits():
    assert encode(np.array([2.0**62 - 2**10]), 0)[0] == 2**62 - 2**10
    with pytest.raises(RangeError):
        encode(np.array([2.0**62]), 0)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused(x):
    with pytest.raises(InputError, match="NaN or infinite"):
        encode(np.array([x]), 8)


def test_complex_numbers_are_refused():
    with pytest.raises(InputError, match="complex"):
        encode(np.array([1j]), 8)
