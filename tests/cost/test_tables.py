"""Price lists against counters of MP-SPDZ 3a0a7b1, and how they are put together."""

from __future__ import annotations

import pytest

from mpcc import MpccError
from mpcc.backends.mp_spdz.dialects import DIALECTS, check_source, dialect_of, run_options_of
from mpcc.compiler.cost import PRICES, estimate
from mpcc.compiler.cost.prices import Amount, batches, carry_ands
from mpcc.compiler.driver.check_options import check_options
from mpcc.compiler.driver.options import Options
from mpcc.compiler.errors import EngineError
from mpcc.compiler.protocols import LOCAL_WIDTH, PROTOCOLS, SAFE_WIDTH, SPU_PROTOCOLS, TRUNC_ERROR, protocol_of
from mpcc.compiler.ring.build import Builder
from mpcc.passes.ring.place_truncations import place_truncations

N = 10240
KEYS = {
    "input_client",
    "input_public",
    "input_provider",
    "mul",
    "dot",
    "matmul",
    "trunc_safe",
    "trunc_nearest",
    "lt",
    "reveal",
}


def mul(b):
    return b.mul(*(b.input(name, (N,), 8, 100.0, "client") for name in "xy"))


def dot(b):
    return b.dot(*(b.input(name, (1024, 8), 8, 100.0, "client") for name in "xy"))


def matmul(rows, inner, columns):
    def build(b):
        w = b.param(("w",), (inner, columns), 8, 1.0, public=False)
        return b.matmul(b.input("x", (rows, inner), 8, 100.0, "client"), w)

    return build


def trunc(n, bits=16):
    return lambda b: b.rescale(b.input("x", (n,), bits + 8, 1000.0, "client"), 8)


def lt(n, bits):
    return lambda b: b.lt_zero(b.input("x", (n,), 0, 2.0 ** (bits - 1) - 1, "client"))


def cost(build, protocol, truncation="safe"):
    builder = Builder()
    graph = builder.graph([("y", builder.reveal(build(builder), "y"))])
    return estimate(place_truncations(graph, variant=truncation), protocol)


# what every party sent between the timers, program by program
DEALER = [
    (mul, (163840, 163840, 81920)),
    (dot, (131072, 131072, 65536)),
    (matmul(16, 32, 8), (6144, 6144, 1024)),
    (matmul(128, 20, 128), (40960, 40960, 131072)),
    (matmul(128, 768, 768), (5505024, 5505024, 786432)),
    (trunc(64), (528, 528, 2072)),
    (trunc(1000), (8016, 8016, 32480)),
    (trunc(N), (81936, 81936, 561744)),
    (trunc(10 * N), (819216, 819216, 3518888)),
    (trunc(1024, 4), (8208, 8208, 32672)),
    (lt(64, 16), (1456, 936, 1408)),
    (lt(1024, 3), (16808, 8608, 16960)),
    (lt(1024, 24), (26536, 18336, 24512)),
    (lt(1024, 40), (34472, 26272, 30528)),
    (lt(N, 16), (226600, 144672, 313664)),
    (lt(10 * N, 40), (3443416, 2624208, 3277280)),
]
SEMI2K = [
    (mul, (17104914, 17104914)),
    (dot, (12770834, 12770834)),
    (matmul(16, 32, 8), (6383634, 6383634)),
    (matmul(64, 64, 64), (409239570, 409239570)),
    (trunc(1000), (520530, 1068882)),
    (trunc(N), (5387282, 11030546)),
    (lt(1024, 8), (280740, 293028)),
    (lt(1024, 31), (1408292, 1420580)),
    (lt(N, 40), (19012004, 19102116)),
]
REP4 = [
    (mul, (163872, 163872, 81984, 81984)),
    (trunc(N), (409648, 245840, 245824, 82016)),
    (matmul(64, 64, 64), (65568, 65568, 32832, 32832)),
    (lt(N, 8), (318976, 237088, 201440, 119552)),
    (lt(N, 40), (720992, 639104, 402592, 320704)),
]
HEMI = [
    (mul, (3473968, 3473968)),
    (matmul(16, 128, 128), (58729216, 58729216)),
    (trunc(1000), (1795730, 1840786)),
    (trunc(2 * 10**4), (33325586, 34161170)),
    (lt(1000, 29), (2064858, 2208218)),
    (lt(10**4, 14), (12824676, 13594724)),
    (lt(10**4, 49), (30572980, 32743860)),
]
TEMI = [(mul, (4194848, 4194848)), (matmul(16, 128, 128), (70263296, 70263296)), (trunc(1000), (1795730, 1840786))]
# (bits, elements) -> bytes of each party: up to four elements share bytes
FEW_COMPARED = {
    (3, 1): 10,
    (4, 2): 19,
    (6, 4): 40,
    (7, 4): 42,
    (12, 1): 15,
    (12, 2): 27,
    (12, 3): 44,
    (12, 5): 76,
    (13, 4): 53,
    (15, 1): 17,
    (19, 4): 65,
    (24, 1): 20,
    (24, 2): 38,
    (24, 3): 67,
    (24, 8): 147,
    (24, 9): 238,
    (28, 1): 24,
    (33, 2): 48,
    (40, 1): 29,
    (40, 2): 55,
    (40, 3): 98,
    (40, 5): 186,
}
RING = [(mul, (81920,) * 3), (trunc(N), (81920, 163840, 81920)), (lt(1024, 16), (14848,) * 3)]
RING += [(lt(n, bits), (sent,) * 3) for (bits, n), sent in FEW_COMPARED.items()]
MEASURED = [
    (p, *entry)
    for p, table in {
        "ring": RING,
        "dealer-ring": DEALER,
        "semi2k": SEMI2K,
        "hemi": HEMI,
        "temi": TEMI,
        "rep4-ring": REP4,
    }.items()
    for entry in table
]
CLOSE = {"ring": 0.0, "dealer-ring": 0.005, "semi2k": 0.05, "hemi": 0.1, "temi": 0.1, "rep4-ring": 0.03}


@pytest.mark.parametrize(("protocol", "build", "sent"), MEASURED)
def test_counters(protocol, build, sent):
    """Framing, up to 200 bytes in a call or batch, is not modelled."""
    found = cost(build, protocol)
    assert found.bytes_by_party == pytest.approx(sent, rel=CLOSE[protocol], abs=0 if protocol == "ring" else 200)


@pytest.mark.parametrize(
    ("bits", "sent"), [(8, (44848, 28448, 42432)), (16, (48688, 32288, 45376)), (32, (56624, 40224, 51392))]
)
def test_nearest_with_a_dealer(bits, sent):
    assert cost(trunc(1024, bits), "dealer-ring", "nearest").bytes_by_party == pytest.approx(sent, abs=200)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_complete(name):
    protocol, table = PROTOCOLS[name], PRICES[name]
    assert protocol.name == table.protocol == DIALECTS[name].protocol == name
    assert protocol.roles[:2] == ("client", "provider") and len(set(protocol.roles)) == protocol.parties
    assert set(table.prices) >= KEYS
    assert not protocol.local_truncation or "trunc_local" in table.prices
    assert protocol.local_truncation == (str(TRUNC_ERROR) in DIALECTS[name].run_options)
    amount = Amount(1000, bits=16, terms=4, rows=10, columns=10, count=10)
    for key, price in table.prices.items():
        assert len(price.bytes(amount)) == len(price.rounds(amount)) == protocol.parties, key
        assert all(isinstance(v, int) and v >= 0 for v in (*price.bytes(amount), *price.rounds(amount))), key
        for need, n in price.needs(amount).items():
            once, batched = (table.supply(need, n, b) for b in (False, True))
            assert all(0 <= a <= b for a, b in zip(once, batched, strict=True))
    security = protocol.security
    assert ("malicious" in security) != ("semi-honest" in security)
    assert ("dealer" in security) == (name == "dealer-ring")


def test_every_table_has_the_same_protocols():
    assert set(PROTOCOLS) == set(PRICES) == set(DIALECTS)
    for name, protocol in SPU_PROTOCOLS.items():
        assert protocol.name == name and protocol.roles == PROTOCOLS[protocol.hosts_like].roles


def test_widths_select_the_truncation():
    """A party accepts an error of 2^(width - 64 + TRUNC_ERROR): above 1 for the safe form only."""
    assert LOCAL_WIDTH + TRUNC_ERROR == 64 < SAFE_WIDTH + TRUNC_ERROR


def test_what_is_prepared_is_counted_once():
    for name in ("dealer-ring", "semi2k"):
        found = cost(trunc(N), name)
        assert 0 < found.bytes_offline <= found.bytes_online == sum(r.bytes for r in found.rows)
        surplus = [r for r in found.rows if r.primitive == "prepared beyond need"]
        assert bool(surplus) == (name == "dealer-ring") and not any(max(r.rounds_by_party) for r in surplus)
        assert cost(lambda b: b.input("x", (4,), 8, 1.0, "client"), name).bytes_online == 0
    assert cost(trunc(N), "ring").bytes_offline == 0


def test_a_loop_needs_its_material_in_every_iteration():
    def body(count):
        b = Builder(prefix="i")
        x = b.arg("carried", 0, b0.type)
        graph = b.graph([("x", b.reinterpret(b.mul(x, x, bound=1.0), -8))])
        return graph, count

    builder = Builder()
    b0 = builder.input("x", (1000,), 8, 1.0, "client")
    graph, count = body(3)
    result = builder.repeat([b0], [], graph, count)[0]
    loop = estimate(builder.graph([("y", builder.reveal(result, "y"))]), "semi2k")
    single = cost(lambda b: b.mul(*[b.input("x", (1000,), 8, 1.0, "client")] * 2), "semi2k")
    assert loop.bytes_online == pytest.approx(3 * single.bytes_online, rel=0.001)


def test_matrix_products_cost_what_the_protocol_says():
    small, deep = matmul(64, 64, 64), matmul(64, 640, 64)
    assert cost(small, "ring").bytes_online == cost(deep, "ring").bytes_online
    assert cost(deep, "semi2k").bytes_online > 9 * cost(small, "semi2k").bytes_online
    assert cost(deep, "ps-rep-ring").bytes_online == 10 * cost(small, "ps-rep-ring").bytes_online
    assert cost(small, "semi2k").bytes_online > 1000 * cost(small, "dealer-ring").bytes_online


@pytest.mark.parametrize(
    ("total", "size", "expected"),
    [(0, 10, (0, 0)), (7, 10, (1, 7)), (11, 10, (2, 6)), (100, 10, (10, 10)), (101, 10, (11, 10))],
)
def test_batches(total, size, expected):
    assert batches(total, size) == expected


def test_carry_tree():
    assert [carry_ands(n) for n in (1, 2, 7, 15, 23, 39)] == [0, 1, 9, 24, 39, 70]


# ** choosing a protocol **
def test_unknown_protocols():
    for refuse in (protocol_of, dialect_of, lambda p: check_options(Options(protocol=p))):
        with pytest.raises(MpccError, match="choose one of: ring"):
            refuse("spdz")


@pytest.mark.parametrize("name", DIALECTS)
def test_the_cheaper_truncation_is_the_default(name):
    """Of a layer's worth of truncations, all else alike."""
    costs = {
        kind: cost(trunc(N), name, variant).bytes_online
        for kind, variant in (("probabilistic", "safe"), ("nearest", "nearest"))
    }
    assert protocol_of(name).truncation == min(costs, key=costs.get)


@pytest.mark.parametrize("name", DIALECTS)
def test_supported_protocols(name):
    check_options(Options(protocol=name))
    assert dialect_of(name).compile_options[:2] == ("-E", name)


def test_party_programs_get_only_options_that_they_know():
    assert run_options_of("replicated-ring-party.x") == ("--trunc-error", str(TRUNC_ERROR))
    assert [run_options_of(f"{name}-party.x") for name in ("semi2k", "hemi", "temi")] == [("-e",)] * 3
    assert run_options_of("dealer-ring-party.x") == run_options_of("unknown.x") == ()


def test_a_source_of_another_protocol_is_refused():
    head = "# mpcc program\n# protocol semi2k, ring Z_2^64, truncation nearest\n"
    check_source(head, "semi2k")
    with pytest.raises(EngineError, match="compiled for semi2k, not for ring"):
        check_source(head, "ring")
    with pytest.raises(EngineError, match="names no protocol"):
        check_source("print_ln()", "ring")
