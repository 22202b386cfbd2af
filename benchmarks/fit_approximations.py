"""How the constants in compiler/approximations were found; run it to find others.

    python -m benchmarks.fit_approximations exp
    python -m benchmarks.fit_approximations gelu --kind tail|even --domain 4 --form none|tanh --bits 3 --seconds 60
    python -m benchmarks.fit_approximations silu --kind tail|even --domain 5 --degree 8|16 --bits 3 --seconds 60

Fits are near-minimax: Lawson's reweighting around a non-linear least-squares fit. The multipliers inside products are
rounded one after another, at random up or down, and the rest is fitted again; the best of many attempts is printed.
Needs scipy, which comes with the extra `spu`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import least_squares

from mpcc.compiler.approximations.gelu import EXACT
from mpcc.compiler.approximations.silu import silu_exact

Floats = NDArray[np.float64]
app = typer.Typer()


def lawson(residual: Callable[[Floats], Floats], theta: Floats, free: list[int], rounds: int) -> tuple[float, Floats]:
    """(largest residual, parameters) of the best of some reweighted fits of the parameters `free`."""
    theta, best = theta.copy(), (float("inf"), theta)

    def at(values: Floats) -> Floats:
        moved = theta.copy()
        moved[free] = values
        return residual(moved)

    weight = np.ones_like(residual(theta))
    for _ in range(rounds):
        root = np.sqrt(weight)
        theta[free] = least_squares(lambda values, root=root: root * at(values), theta[free], max_nfev=60).x
        error = np.abs(residual(theta))
        if error.max() < best[0]:
            best = (float(error.max()), theta.copy())
        weight = weight * (error / error.max() + 0.05)
        weight /= weight.mean()
    return best


@app.command()
def exp() -> None:
    """The quartics of compiler/approximations/exp.py: (squarings, lowest, c, d, e, error)."""
    for n, low in ((0, 1), (1, 2), (2, 4), (2, 16), (3, 32), (4, 64), (5, 128), (6, 256), (7, 512)):
        x = -low * np.linspace(0.0, 1.0, 3001) ** 1.5
        s, exact = x / 2.0 ** (n + 2), np.exp(x)

        def residual(theta: Floats, s: Floats = s, exact: Floats = exact, n: int = n) -> Floats:
            c, d, e = theta
            quartic = 4 * s**2 * (s**2 + 2.25 * s + c) + d * s + e
            return np.asarray(np.clip(quartic, -1.2, 1.2) ** (2**n) - exact)

        error, found = lawson(residual, np.array([1.97, 4.0, 1.0]), [0, 1, 2], 30)
        print(n, -low, *(f"{v:.10g}" for v in found), f"{error:.1e}")


def eighth(theta: Floats, v: Floats, sign: int) -> Floats:
    """The chain of three products, as `_eighth` in gelu.py: theta is (p4, p2, b, p3, d, e, c0, c1, c2, c3)."""
    w1 = v * v
    w2 = w1 * (theta[0] * w1 + theta[1] * v + theta[3]) + theta[4] * v + theta[5]
    return np.asarray(w2 * (sign * w2 + theta[2] * w1) + theta[6] * w2 + theta[7] * w1 + theta[8] * v + theta[9])


@app.command()
def gelu(
    kind: Annotated[str, typer.Option(help="tail (any argument) or even (within the domain)")] = "even",
    form: Annotated[str, typer.Option(help="none (erf) or tanh")] = "none",
    domain: float = 4.0,
    bits: Annotated[int, typer.Option(help="fractional bits of the multipliers inside products")] = 3,
    seconds: float = 60.0,
    seed: int = 0,
) -> None:
    """Chains of three products for GELU; prints each better one: error, sign, parameters."""
    rng = np.random.default_rng(seed)
    v, wanted, unit = wanted_of(EXACT[form], kind, domain)
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        sign = int(rng.choice([-1, 1]))

        def residual(theta: Floats, sign: int = sign) -> Floats:
            return np.asarray(eighth(theta, v, sign) - wanted)

        free: list[int] = list(range(10))
        error, theta = lawson(residual, rng.normal(size=10), free, 3)
        if error * unit > 3e-3:
            continue
        for i in rng.permutation(3):
            theta[i] = _rounded(theta[i], bits, rng)
            free.remove(int(i))
            error, theta = lawson(residual, theta, free, 8)
        error, theta = lawson(residual, theta, free, 20)
        if error * unit < best and np.abs(theta).max() < 8:
            best = error * unit
            print(f"{best:.2e}", sign, [float(np.round(t, 10)) for t in theta], flush=True)


def wanted_of(
    function: Callable[[Floats], Floats], kind: str, domain: float, unit: float = 0.0
) -> tuple[Floats, Floats, float]:
    """(variable, values of the polynomial, what both are measured in): even is in t^2, the tail in |t|."""
    x = domain * np.linspace(0.0, 1.0, 1500) ** 1.2
    unit = unit or float(2.0 ** np.ceil(np.log2(domain)))
    if kind == "even":
        return (x / unit) ** 2, (function(x) - x / 2) / unit, unit
    return x / unit, (function(x) - x) / unit, unit


MULTIPLIERS = 7  # the first parameters of `sixteenth` are multipliers inside products


def sixteenth(theta: Floats, v: Floats, sign: int) -> Floats:
    """The chain of four products, as `_sixteenth` in silu.py: theta is (p4, p2, q2, q1, r3, r2, r1, p3, d, ...)."""
    p4, p2, q2, q1, r3, r2, r1, p3, d, a0, a1, a2, a3, c0, c1, c2, c3, c4 = theta
    w1 = v * v
    w2 = w1 * (p4 * w1 + p2 * v + p3) + d * v
    w3 = (w2 + q2 * w1 + q1 * v) * (r3 * w2 + r2 * w1 + r1 * v) + a0 + a1 * v + a2 * w1 + a3 * w2
    return np.asarray(sign * w3 * w3 + c0 + c1 * v + c2 * w1 + c3 * w2 + c4 * w3)


# Where the search for SiLU's even polynomials begins: GELU's on [-4, 4] and [-8, 8], about tanh(3.4 t) and tanh(6.8 t).
NEAR_8 = (0.875, -2.5, -0.375, 2.4755, -1.3650, 1.0672, 1.3550, 0.0434, 0.5276, -0.3072)
NEAR_16 = (-2.75, 7.0, -1.0, -0.75, 4.75, -2.0, -4.25, -5.387, 2.824, -0.6255, 0.7614, 2.064, -1.617)
NEAR_16_SUM = (-0.7552, 0.2783, -0.1987, 0.2445, -1.833)


@app.command()
def silu(
    kind: Annotated[str, typer.Option(help="tail (any argument) or even (within the domain)")] = "even",
    domain: float = 5.0,
    degree: Annotated[int, typer.Option(help="8 or 16")] = 8,
    unit: Annotated[float, typer.Option(help="what the variable is measured in; 0: the next power of two")] = 0.0,
    bits: Annotated[int, typer.Option(help="fractional bits of the multipliers inside products")] = 3,
    seconds: float = 60.0,
    seed: int = 0,
) -> None:
    """Chains of three or four products for SiLU; prints each better one: error, sign, parameters."""
    rng = np.random.default_rng(seed)
    v, wanted, unit = wanted_of(silu_exact, kind, domain, unit)
    chain, multipliers = (eighth, 3) if degree == 8 else (sixteenth, MULTIPLIERS)
    first = np.array(NEAR_8 if degree == 8 else NEAR_16 + NEAR_16_SUM)
    if kind == "even":
        first = moved(first, chain, 3.4 if degree == 8 else 6.8, unit, domain)
    best, end = float("inf"), time.monotonic() + seconds

    def residual(theta: Floats) -> Floats:
        return np.asarray(chain(theta, v, -1) - wanted)

    while time.monotonic() < end:
        free = list(range(len(first)))
        error, theta = lawson(residual, first + 0.1 * rng.normal(size=len(first)), free, 6)
        if not error * unit < 5e-3:
            continue
        for i in rng.permutation(multipliers):
            theta[i] = _rounded(theta[i], bits, rng)
            free.remove(int(i))
            error, theta = lawson(residual, theta, free, 6)
        error, theta = lawson(residual, theta, free, 20)
        if error * unit < best:
            best = error * unit
            print(f"{best:.2e}", -1, [float(np.round(t, 10)) for t in theta], flush=True)


def moved(theta: Floats, chain: Callable[..., Floats], slope: float, unit: float, domain: float) -> Floats:
    """Parameters for t/2 tanh(slope t) on [-1, 1], moved in small steps to SiLU on [-domain, domain]."""
    for share in np.linspace(0.0, 1.0, 13):
        steep = slope ** (1 - share) * (unit / 2) ** share
        edge = (domain / unit) ** share
        t = edge * np.linspace(0.0, 1.0, 600) ** 1.2
        target = t / 2 * np.tanh(steep * t)

        def residual(theta: Floats, t: Floats = t, target: Floats = target) -> Floats:
            return np.asarray(chain(theta, t * t, -1) - target)

        error, theta = lawson(residual, theta, list(range(len(theta))), 8)
        print(f"# {steep:.3f} {edge:.3f} {error * unit:.2e}", flush=True)
    return theta


def _rounded(value: float, bits: int, rng: np.random.Generator) -> float:
    """Up or down to `bits` fractional bits, more often to the nearer one."""
    low = np.floor(value * 2.0**bits) / 2.0**bits
    rest: Any = (value - low) * 2.0**bits
    return float(low + (rng.random() < rest) / 2.0**bits)


if __name__ == "__main__":
    app()
