"""Every approximation over its whole domain on the emulator against float64, held to the bound it declares."""

from __future__ import annotations

import numpy as np
import pytest
from harness import MODES, evaluate

from mpcc.compiler.approximations import APPROXIMATIONS
from mpcc.compiler.approximations import gelu as gelu_forms
from mpcc.compiler.approximations.exp import FORMS, MAX_FRAC_BITS, exp_error, exp_negative, form_for
from mpcc.compiler.approximations.newton import (
    LEAN_BITS,
    LEAN_ERROR,
    START_WEIGHTS,
    plan,
    reciprocal,
    reciprocal_error,
    rsqrt,
    rsqrt_error,
)
from mpcc.compiler.approximations.polynomial import evaluate as polynomial
from mpcc.compiler.approximations.polynomial import fit_minimax
from mpcc.compiler.approximations.sigmoid import relu, sigmoid, tanh
from mpcc.compiler.approximations.sign import clip_above, clip_below, sign_and_abs
from mpcc.compiler.approximations.silu import SILU, silu
from mpcc.compiler.approximations.softmax import row_max, softmax, softmax_error, softmax_without_exp
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ops import REGISTRY

FRAC_BITS = (13, 16)
EPSILON = 2.0**-6
BY_LOWERING = {"layer_norm", "rms_norm"}  # tests/lowering holds these to their bounds


def span(low, high, count=4001):
    """Evenly over the domain, densely around 0, and the edges themselves."""
    near = np.linspace(max(low, -6), min(high, 6), count)
    return np.concatenate([np.linspace(low, high, count), near, [low, high, 0.0]])


# softmax: the rows of the whole domain with as many squarings as they need are in a test of their own
def rows(lowest, highest, length=32):
    """Rows of scores: random, constant, one-hot, and the ones that make the error of the exponential count most."""
    rng = np.random.default_rng(0)
    worst = np.full((length, length), min(highest, lowest + 384, 3.0) - 3.0)
    for n in range(length):
        worst[n, : n + 1] = max(lowest, -60)
        worst[n, 0] = worst[n, -1] + 3.0
    wide = rng.uniform(lowest, highest, (40, length))
    flat = np.repeat(np.linspace(lowest, highest, 20)[:, None], length, 1)
    edge = np.full((2, length), lowest)
    edge[:, 3] = highest
    small = np.full((400, length), -5.0)  # where the weights of 2quad almost vanish
    small[:, 0] += np.geomspace(2.0**-14, 1, 400)
    return np.concatenate([worst, wide, rng.normal(size=(40, length)), flat, edge, small])


def exact_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def shares(weights):
    return weights / (EPSILON + weights.sum(-1, keepdims=True))


def exact_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def newton(function, a):
    def build(b, x):
        return b.rescale(function(b, x, low=a.domain.low, high=a.domain.high, frac_bits=24), x.type.frac_bits)

    return build


def soft(function, **options):
    return lambda a: lambda b, x: function(b, x, frac_bits=x.type.frac_bits, **options)


# (op, form) -> (builder of the ring function, float64 meaning, arguments)
CASES = {
    ("gelu", "polynomial"): (lambda a: gelu_forms.gelu, gelu_forms.gelu_exact, None),
    ("gelu_quad", "quad"): (lambda a: gelu_forms.quad, lambda x: x * x / 8 + x / 4 + 0.5, None),
    ("softmax", "exp"): (soft(softmax, spread=48.0), exact_softmax, lambda low, high: rows(-48.0, high)),
    ("softmax_2quad", "2quad"): (soft(softmax_without_exp, square=True), lambda x: shares((x + 5) ** 2), rows),
    ("softmax_2relu", "2relu"): (soft(softmax_without_exp, square=False), lambda x: shares(np.maximum(x, 0)), rows),
    ("reciprocal", "newton"): (lambda a: newton(reciprocal, a), lambda x: 1 / x, np.geomspace),
    ("rsqrt", "newton"): (lambda a: newton(rsqrt, a), lambda x: x**-0.5, np.geomspace),
    ("tanh", "exp"): (lambda a: tanh, np.tanh, None),
    ("sigmoid", "exp"): (lambda a: sigmoid, exact_sigmoid, None),
    ("silu", "polynomial"): (lambda a: silu, lambda x: x * exact_sigmoid(x), None),
    ("relu", "comparison"): (lambda a: relu, lambda x: np.maximum(x, 0), None),
}
ALL = [a for a in APPROXIMATIONS.values() if a.op not in BY_LOWERING]


def quantised(x, frac_bits):
    return np.rint(x * 2.0**frac_bits) / 2.0**frac_bits


def measured(a, frac_bits, mode):
    """The largest error over the domain, in the unit the registry names."""
    build, meaning, arguments = CASES[a.op, a.name]
    x = (arguments or span)(a.domain.low, a.domain.high)
    exact = meaning(quantised(x, frac_bits))
    bound = max(abs(a.domain.low), abs(a.domain.high))
    error = np.abs(evaluate(build(a), x, frac_bits=frac_bits, bound=bound, mode=mode) - exact)
    unit = {"1": np.ones_like(error), "y": np.maximum(1, np.abs(exact))}[a.error_of]
    return float((error / unit).max())


def test_every_form_has_a_case():
    assert {(a.op, a.name) for a in ALL} == set(CASES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frac_bits", FRAC_BITS)
@pytest.mark.parametrize("a", ALL, ids=lambda a: f"{a.op}-{a.name}")
def test_error_is_within_the_declared_bound_which_is_not_vacuous(a, frac_bits, mode):
    error, bound = measured(a, frac_bits, mode), a.error_bound(frac_bits)
    assert bound / 20 <= error <= bound


def test_registry_is_consistent():
    for op, a in APPROXIMATIONS.items():
        assert REGISTRY[op].secure, op
        assert a.source and a.domain.text and a.domain.low < a.domain.high, op
        assert a.error_bound(13) >= a.error_bound(16), f"{op}: fewer bits cannot be more exact"


HALF_EVEN = {**{f"gelu {form}": gelu for form, gelu in gelu_forms.GELU.items()}, "silu": SILU}
FORMS_OF = [(name, domain) for name, function in HALF_EVEN.items() for domain in function.fit_errors]


@pytest.mark.parametrize("inner", [15, 17, 20])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frac_bits", FRAC_BITS)
@pytest.mark.parametrize(("name", "domain"), FORMS_OF)
def test_every_gelu_and_silu_over_its_domain(name, domain, frac_bits, mode, inner):
    function = HALF_EVEN[name]
    form = function.evaluate_anywhere if domain is None else function.evaluate_within
    x = span(-(domain or 64.0), domain or 64.0)
    y = evaluate(lambda b, v: form(b, v, inner), x, frac_bits=frac_bits, bound=domain or 64.0, mode=mode)
    error, bound = np.abs(y - function.exact(quantised(x, frac_bits))).max(), function.error(domain, frac_bits, inner)
    assert bound / 20 <= error <= bound


def test_the_fits_of_gelu_and_silu():
    """The published figures of the polynomials themselves; the even ones are even."""
    for gelu in gelu_forms.GELU.values():
        limits = {None: 3e-4, 4.0: 1.8e-4, 8.0: 2e-4, 9.0: 6e-4}
        assert all(gelu.fit_errors[domain] <= limit for domain, limit in limits.items())
        edges = [chain and chain.edge for chain in map(gelu.within, (0.5, 4.0, 4.1, 8.7, 9.1))]
        assert edges == [4.0, 4.0, 8.0, 9.0, None]
    assert all(SILU.fit_errors[d] <= limit for d, limit in {None: 2.1e-4, 5.0: 2.4e-4, 10.0: 9e-4}.items())
    assert [chain and chain.edge for chain in map(SILU.within, (5.0, 5.1, 10.1))] == [5.0, 10.0, None]
    x = np.linspace(-4, 4, 101)
    for function in HALF_EVEN.values():
        assert all(np.allclose(chain.values(x), chain.values(-x)) for chain in function.even)


def test_an_even_polynomial_is_refused_beyond_its_domain():
    with pytest.raises(InternalError, match="no even polynomial"):
        evaluate(SILU.evaluate_within, np.zeros(3), frac_bits=16, bound=10.5, mode="nearest")


@pytest.mark.parametrize("bound", [2.0, 4.0, 4096.0])
@pytest.mark.parametrize("name", HALF_EVEN)
def test_gelu_and_silu_keep_their_bound_for_narrow_and_wide_arguments(name, bound):
    x, function = np.linspace(-bound, bound, 2001), HALF_EVEN[name]
    y = evaluate(function.evaluate_anywhere, x, frac_bits=16, bound=bound, mode="nearest")
    assert np.abs(y - function.exact(quantised(x, 16))).max() <= function.error(None, 16)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frac_bits", FRAC_BITS)
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.squarings}{f.lowest:g}")
def test_exp_over_each_domain(form, frac_bits, mode):
    lowest = form.lowest
    assert form_for(lowest, form.error) is form
    x = span(lowest, 0.0)
    y = evaluate(
        lambda b, v: exp_negative(b, v, lowest=lowest, tolerance=form.error),
        x,
        frac_bits=frac_bits,
        bound=-lowest,
        mode=mode,
    )
    error = np.abs(y - np.exp(quantised(x, frac_bits))).max()
    bound = exp_error(form, min(frac_bits + form.squarings, MAX_FRAC_BITS))
    assert bound / 20 <= error <= bound


@pytest.mark.parametrize("frac_bits", FRAC_BITS)
@pytest.mark.parametrize("spread", [10.0, 78.5, 160.0, 384.0])
def test_softmax_over_its_whole_domain(spread, frac_bits):
    x = rows(-spread, 0.0) + spread / 2
    y = evaluate(
        lambda b, v: softmax(b, v, spread=spread, frac_bits=frac_bits),
        x,
        frac_bits=frac_bits,
        bound=spread,
        mode="probabilistic",
    )
    error, bound = np.abs(y - exact_softmax(quantised(x, frac_bits))).max(), softmax_error(frac_bits, spread)
    assert bound / 20 <= error <= bound


@pytest.mark.parametrize("mode", MODES)
def test_exp_clips_below_its_largest_domain(mode):
    """Far below the domain the polynomial would come back up to 1 and beyond."""
    x = np.array([-513.0, -600.0, -1000.0, -5000.0, 0.0, -1.0])
    y = evaluate(lambda b, v: exp_negative(b, v, lowest=-5000.0), x, frac_bits=16, bound=5000.0, mode=mode)
    assert np.abs(y - np.exp(x)).max() <= exp_error(FORMS[-1], 23)


@pytest.mark.parametrize("function", [sigmoid, tanh], ids=lambda f: f.__name__)
def test_sigmoidal_functions_are_flat_far_out(function):
    """Beyond 16 the argument is clipped: no growth, no wrap-around."""
    x = np.array([-4000.0, -300.0, -17.0, 17.0, 300.0, 4000.0])
    y = evaluate(function, x, frac_bits=16, bound=4096.0, mode="nearest")
    limit = {"sigmoid": (x > 0) * 1.0, "tanh": np.sign(x)}[function.__name__]
    assert np.abs(y - limit).max() < 2e-5


INTERVALS = [(0.5, 2.0), (0.01, 10.0), (1.0, 1000.0), (2.0**-10, 1.0), (0.05, 400.0), (0.01, 1000.0), (0.02, 2.0**16)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("low", "high"), INTERVALS, ids=lambda v: f"{v:g}")
@pytest.mark.parametrize(
    ("function", "power", "bound"),
    [(reciprocal, -1.0, reciprocal_error(24)), (rsqrt, -0.5, rsqrt_error(24))],
    ids=["reciprocal", "rsqrt"],
)
def test_newton_is_relative_on_narrow_and_wide_intervals(function, power, bound, low, high, mode):
    """Relative error, before rounding to the working scale; wide intervals are normalised by powers of two first."""
    x = np.concatenate([np.geomspace(low, high, 3001), [low, high]])
    x = np.clip(quantised(x, 20), low, high)

    def error(without=frozenset()):
        y = evaluate(
            lambda b, v: function(b, v, low=low, high=high, frac_bits=24),
            x,
            frac_bits=20,
            bound=high,
            mode=mode,
            without=without,
        )
        return np.abs(y / quantised(x, 20) ** power - 1).max()

    assert error() <= bound
    assert bound / 20 <= error({"defer_rescales"}) <= bound  # with every rounding that is asked for


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighing", START_WEIGHTS)
@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0.95, 135.0), (64.0, 1024.0)], ids=lambda v: f"{v:g}")
@pytest.mark.parametrize(
    ("function", "power", "declared"),
    [(reciprocal, -1.0, reciprocal_error), (rsqrt, -0.5, rsqrt_error)],
    ids=["reciprocal", "rsqrt"],
)
def test_lean_newton_is_within_what_is_declared_for_it(function, power, declared, low, high, mode, weighing):
    x = np.clip(quantised(np.geomspace(low, high, 3001), 26), low, high)
    y = evaluate(
        lambda b, v: function(
            b, v, low=low, high=high, frac_bits=LEAN_BITS, error=LEAN_ERROR, lean=True, weighing=weighing
        ),
        x,
        frac_bits=26,
        bound=high,
        mode=mode,
    )
    error, bound = np.abs(y / x**power - 1).max(), declared(LEAN_BITS, LEAN_ERROR)
    assert bound / 20 <= error <= bound


def test_more_segments_take_fewer_steps():
    for power in (-1.0, -0.5):
        steps = [plan(power, 2.0**-4, 1.0, LEAN_ERROR, weighing).steps for weighing in START_WEIGHTS]
        assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1] == 0


@pytest.mark.parametrize("arity", [2, 3, 4, 8, 1 << 20])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
def test_row_max_is_exact(length, arity):
    """In groups of any size, also where several entries are the largest."""
    x = quantised(np.random.default_rng(length).normal(size=(7, length)) * 20, 16)
    x[0] = 3.0
    x[1, length // 2 :] = 100.0
    found = evaluate(lambda b, v: row_max(b, v, arity), x, frac_bits=16, bound=128, mode="probabilistic")
    assert np.array_equal(found, x.max(-1, keepdims=True))


def test_clips_and_absolute_value_are_exact():
    x = quantised(span(-64, 64, 500), 16)

    def run(function):
        return evaluate(function, x, frac_bits=16, bound=64, mode="probabilistic")

    assert np.array_equal(run(lambda b, v: clip_above(b, v, 4.0)), np.minimum(x, 4))
    assert np.array_equal(run(lambda b, v: clip_below(b, v, -4.0)), np.maximum(x, -4))
    assert np.array_equal(run(lambda b, v: sign_and_abs(b, v)[1]), np.abs(x))
    assert np.array_equal(run(lambda b, v: sign_and_abs(b, v)[0]), (x < 0) * 1.0)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 6, 8, 9, 11])
def test_polynomials_of_every_degree(degree):
    coefficients, fit = fit_minimax(np.cos, -1.0, 1.0, degree)
    u = quantised(np.linspace(-1, 1, 1001), 16)
    y = evaluate(lambda b, v: polynomial(b, v, coefficients, bound=2.0), u, frac_bits=16, bound=1.0, mode="nearest")
    assert np.abs(y - np.polynomial.polynomial.polyval(u, coefficients)).max() <= 8 * 2.0**-16
    assert np.abs(y - np.cos(u)).max() <= fit * 1.001 + 8 * 2.0**-16
