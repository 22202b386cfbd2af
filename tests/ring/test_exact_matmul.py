"""The matrix product of the emulator equals exact integer arithmetic modulo 2^64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcc.backends.emulator import exact

EXTREMES = st.sampled_from([0, 1, -1, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63)])


@st.composite
def factors(draw):
    batch = draw(st.sampled_from([(), (2,), (2, 3)]))
    n, k, m = (draw(st.integers(1, 5)) for _ in range(3))
    bits = [draw(st.integers(0, 63)) for _ in range(2)]

    def array(shape, width):
        element = st.integers(-(2**width), 2**width - 1)
        if width == 63:
            element |= EXTREMES
        size = int(np.prod(shape))
        flat = draw(st.lists(element, min_size=size, max_size=size))
        return np.array(flat, dtype=np.int64).reshape(shape)

    return array((*batch, n, k), bits[0]), array((*batch, k, m), bits[1])


def by_python_integers(a, b):
    product = np.matmul(a.astype(object), b.astype(object))
    return np.vectorize(lambda v: (v + 2**63) % 2**64 - 2**63, otypes=[np.int64])(product)


@settings(deadline=None, max_examples=300)
@given(factors())
def test_equals_python_integers(operands):
    a, b = operands
    assert (exact.matmul(a, b) == by_python_integers(a, b)).all()


@pytest.mark.parametrize("bits_a", [1, 16, 30, 45, 63])
@pytest.mark.parametrize("bits_b", [1, 20, 41, 63])
def test_long_sums_of_random_values(bits_a, bits_b):
    rng = np.random.default_rng(bits_a * 64 + bits_b)
    a = rng.integers(-(2**bits_a), 2**bits_a - 1, (2, 3, 3072))
    b = rng.integers(-(2**bits_b), 2**bits_b - 1, (2, 3072, 2))
    assert (exact.matmul(a, b) == np.matmul(a, b)).all()


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 - 1])
def test_long_sums_of_extreme_values(value):
    a = np.full((2, 4096), value)
    assert (exact.matmul(a, a.T) == by_python_integers(a, a.T)).all()


@given(st.integers(0, 64), st.integers(0, 64), st.integers(1, 10**6))
def test_limbs_stay_exact(bits_a, bits_b, terms):
    width_a, width_b = exact.limb_widths(bits_a, bits_b, terms)
    assert terms * 2 ** (width_a + width_b) <= 2**53 * 1 or terms == 1
    assert width_a >= 1 and width_b >= 1


def test_small_operands_take_one_product():
    assert exact.limb_widths(20, 20, 1024) == (20, 20)


def test_broadcast_views_and_empty_sums():
    a = np.broadcast_to(np.int64(3), (2, 4, 5))
    assert (exact.matmul(a, np.swapaxes(a, 1, 2)) == 45).all()
    assert exact.matmul(np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)).shape == (2, 3)
