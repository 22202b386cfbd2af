"""Networks by name and from TOML files, what is wrong with such a file, and the choice that a network makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from mpcc import MpccError
from mpcc.compiler.cost import NETWORKS, Cost, Network, Row, estimate, network_of
from mpcc.compiler.driver.candidates import VARIANTS, Variant
from mpcc.compiler.driver.choose import NEARLY, choose
from mpcc.compiler.lowering import Settings
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.verify import verify
from mpcc.inspection import sentence

SLOW = Network("slow", 1e6, 1e-3)


def write(folder, text):
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_a_preset_says(tmp_path):
    path = write(tmp_path, "bandwidth_mbit_per_s = 100\nround_trip_ms = 40.0\n")
    for given in (path, str(path)):
        assert network_of(given) == replace(NETWORKS["wan"], name="site")
    assert network_of("lan") is NETWORKS["lan"] and network_of(SLOW) is SLOW
    assert NETWORKS["wan"].seconds(10**6, 10) == pytest.approx(0.08 + 0.2)


@pytest.mark.parametrize(
    "text, message",
    [
        ("bandwidth_mbit_per_s = 100", "says no round_trip_ms"),
        ("round_trip_ms = 1", "says no bandwidth_mbit_per_s"),
        ("bandwidth_mbit_per_s = -1\nround_trip_ms = 1", "bandwidth_mbit_per_s is not a number of 0 or more"),
        ("bandwidth_mbit_per_s = 0\nround_trip_ms = 1", "must be above 0"),
        ("bandwidth_mbit_per_s = 1\nround_trip_ms = nan", "round_trip_ms is not a number"),
        ("bandwidth_mbit_per_s = true\nround_trip_ms = 1", "is not a number"),
        ("bandwidth_mbit_per_s = 1\nround_trip_ms = '1'", "round_trip_ms is not a number"),
        ("bandwidth_mbit_per_s = 1\nround_trip_ms = 1\nspeed = 3", "has no 'speed'"),
        ("bandwidth = = 1", "the network is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(MpccError, match=message) as caught:
        network_of(write(tmp_path, text))
    assert "site.toml" in str(caught.value)


def test_no_such_network(tmp_path):
    with pytest.raises(MpccError, match="cannot read the network"):
        network_of(tmp_path / "none.toml")
    with pytest.raises(MpccError, match="unknown network 'moon'"):
        network_of("moon")
    with pytest.raises(MpccError, match="unknown network"):
        estimate(Builder().graph([]), "ring", network="moon")


# ** the choice, on prices made up for it **
@dataclass(frozen=True)
class Priced:
    settings: Settings
    cost: Cost


def priced(network, prices):
    """Forms by arity of the row maximum and bits: (bytes, rounds)."""

    def cost(settings):
        size, rounds = prices[settings.row_maximum_arity, settings.frac_bits]
        return Cost("ring", (Row("", "", "mul", 1, 1, (size,) * 3, (rounds,) * 3),), network=network)

    return (lambda settings: Priced(settings, cost(settings))), cost


def arity(n):
    return Variant(f"by {n}", "fewer levels", lambda s: replace(s, row_maximum_arity=n))


def bits(n):
    return Variant(f"{n} bits", "precision", lambda s: replace(s, frac_bits=n))


PRICES = {(2, 13): (10**6, 100), (4, 13): (2 * 10**6, 50), (2, 16): (1.01 * 10**6, 100), (4, 16): (4 * 10**6, 50)}


@pytest.mark.parametrize("network, want", [("lan", (4, 13)), ("wan", (4, 13)), (SLOW, (2, 16))], ids=str)
def test_the_fastest_wins_and_the_more_precise_of_nearly_equal_ones(network, want):
    make, rough = priced(network_of(network), PRICES)
    chosen, rows = choose(Settings(frac_bits=13), [bits(16), bits(13)], [arity(4)], make, rough)
    assert (chosen.settings.row_maximum_arity, chosen.settings.frac_bits) == want
    assert chosen.cost.seconds <= NEARLY * min(r.seconds for r in rows)
    assert any(r.chosen for r in rows) and all(r.why and r.reason for r in rows)
    text = sentence(rows, str(network))
    assert text.startswith(f"On {network}") and text.endswith(".") and "\n" not in text


@pytest.mark.parametrize(
    "megabytes, rounds, taken",
    [
        (3.0, 99, True),
        (3.001, 99, False),
        (2.999, 100, True),
        (2.99, 101, True),
        (3.1, 60, True),
    ],
)
def test_sending_more_has_to_pay_and_sending_less_does_not(megabytes, rounds, taken):
    prices = {(2, 13): (3 * 10**6, 100), (4, 13): (int(megabytes * 1e6), rounds)}
    network = Network("n", 1e8, 1e-3)
    make, rough = priced(network, prices)
    chosen, rows = choose(Settings(frac_bits=13), [bits(13)], [arity(4)], make, rough)
    assert (chosen.settings.row_maximum_arity == 4) == taken
    assert taken or "too little (under 2%)" in rows[-1].why
    faster = network.seconds(*prices[4, 13]) < network.seconds(*prices[2, 13])
    assert faster, "every case of this test saves time"


def test_equal_settings_are_priced_once():
    make, rough = priced(NETWORKS["lan"], PRICES)
    asked = []
    variants = [arity(4), arity(4), arity(2)]
    choose(Settings(frac_bits=13), [bits(13)], variants, make, lambda s: asked.append(s) or rough(s))
    assert len(asked) == len({s.row_maximum_arity for s in asked}) == 2


def test_a_variant_that_changes_nothing_is_not_mentioned():
    make, rough = priced(NETWORKS["lan"], PRICES)
    rows = choose(Settings(frac_bits=13), [bits(13)], [arity(2)], make, rough)[1]
    assert [r.name for r in rows] == ["fewest bytes"] and sentence((), "lan") == ""


def test_every_variant_changes_the_settings_and_says_why():
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        assert variant.change(Settings()) != Settings() and len(variant.reason) > 20
    verify(Builder().graph([]))
