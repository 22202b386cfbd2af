"""What a ring program costs, derived by counting its primitives.

Bytes add up. Rounds follow the schedule that the MP-SPDZ compiler makes of the emitted source: independent instructions
of one kind at the same depth (communicating operations on the longest path to them) share their rounds, instructions of
different kinds do not. A loop costs its body times its count.

Where a protocol prepares material (triples, random bits), an operation's bytes include what is sent to prepare its own;
what MP-SPDZ prepares beyond that, since it works in batches, is a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mpcc.compiler.cost.network import Network, network_of
from mpcc.compiler.cost.prices import Amount, Need, PerParty, PriceList
from mpcc.compiler.cost.protocols import PRICES
from mpcc.compiler.errors import MpccError
from mpcc.compiler.protocols import MpSpdzProtocol, protocol_of
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.rules import price_key


@dataclass(frozen=True)
class Row:
    """One primitive of one layer: how often, on how many elements, at what price (all iterations together)."""

    layer: str
    operation: str
    primitive: str
    count: int
    elements: int
    bytes_by_party: PerParty
    rounds_by_party: PerParty

    @property
    def bytes(self) -> int:
        return sum(self.bytes_by_party)


@dataclass(frozen=True)
class Cost:
    """Bytes over all parties and rounds of the busiest one.

    All bytes of an inference are in `bytes_online`, as the parties count them; `bytes_offline` says how many of these
    prepare material that depends on no input (zero where a protocol prepares nothing).
    """

    protocol: str
    rows: tuple[Row, ...] = ()
    input_bytes: int = 0
    provisioning_bytes: int = 0
    network: Network = field(default_factory=lambda: network_of("lan"))
    bytes_offline: int = 0
    parties: int = 3

    @property
    def bytes_by_party(self) -> PerParty:
        return _add(*(r.bytes_by_party for r in self.rows), parties=self.parties)

    @property
    def bytes_online(self) -> int:
        return sum(self.bytes_by_party)

    @property
    def rounds_by_party(self) -> PerParty:
        return _add(*(r.rounds_by_party for r in self.rows), parties=self.parties)

    @property
    def rounds(self) -> int:
        return max(self.rounds_by_party, default=0)

    @property
    def seconds(self) -> float:
        """Time on the network alone; see `Network.seconds`."""
        return self.network.seconds(max(self.bytes_by_party, default=0), self.rounds)

    def by(self, key: str) -> list[tuple[str, int, int]]:
        """(name, bytes, rounds of the busiest party) summed over "layer", "operation" or "primitive"."""
        totals: dict[str, list[PerParty]] = {}
        for row in self.rows:
            name = str(getattr(row, key))
            entry = totals.setdefault(name, [(0,) * self.parties, (0,) * self.parties])
            entry[0] = _add(entry[0], row.bytes_by_party, parties=self.parties)
            entry[1] = _add(entry[1], row.rounds_by_party, parties=self.parties)
        return [(name, sum(entry[0]), max(entry[1])) for name, entry in totals.items()]

    def to_json(self) -> dict[str, object]:
        return {
            "protocol": self.protocol,
            "network": self.network.name,
            "bandwidth_mbit_per_s": self.network.bandwidth / 1e6,
            "round_trip_ms": self.network.round_trip * 1e3,
            "bytes_online": self.bytes_online,
            "bytes_offline": self.bytes_offline,
            "bytes_by_party": list(self.bytes_by_party),
            "rounds": self.rounds,
            "rounds_by_party": list(self.rounds_by_party),
            "seconds": self.seconds,
            "input_bytes": self.input_bytes,
            "provisioning_bytes": self.provisioning_bytes,
        }


def estimate(graph: RingGraph, protocol: str, *, network: str | Path | Network = "lan") -> Cost:
    """Cost of one inference of a scheduled ring graph on a network: a preset, a TOML file, or a `Network`.

    Raises:
        MpccError: no price list for the protocol, or no such network.
    """
    if protocol not in PRICES:
        raise MpccError(f"no costs for the protocol {protocol!r}", todo=f"known: {', '.join(PRICES)}")
    return _Bill(protocol_of(protocol), PRICES[protocol]).total(graph, network_of(network))


class _Bill:
    """Adds up what a program buys in one protocol."""

    def __init__(self, protocol: MpSpdzProtocol, price_list: PriceList) -> None:
        self.protocol, self.prices, self.supply = protocol, price_list.prices, price_list.supply
        self.parties = protocol.parties
        self.nothing = (0,) * self.parties
        self.needs: dict[Need, int] = {}

    def total(self, graph: RingGraph, network: Network) -> Cost:
        rows = self.rows(graph, 1)
        surplus, offline = self.prepared()
        rows += surplus
        revealed = sum(r.bytes for r in rows if r.primitive == "reveal")
        weights = sum(
            n.type.elements * len(n.strs_attr("tensors"))
            for n, _ in graph.walk()
            if n.op == "param" and not n.type.public
        )
        return Cost(
            self.protocol.name,
            tuple(r for r in rows if r.primitive != "reveal"),
            self.inputs(graph) + revealed,
            sum(self.prices["input_provider"].bytes(Amount(weights))),
            network,
            bytes_offline=offline,
            parties=self.parties,
        )

    def inputs(self, graph: RingGraph) -> int:
        """Bytes in which inputs are shared."""
        keys = {True: "input_public", False: "input_client"}
        shared = [n.type for n in graph if n.op == "input"]
        return sum(sum(self.prices[keys[t.public]].bytes(Amount(t.elements))) for t in shared)

    def prepared(self) -> tuple[list[Row], int]:
        """What batches of preparation cost beyond what is used, and the bytes of all preparation."""
        total, used = (
            self.sum(*(self.supply(need, n, batched) for need, n in self.needs.items())) for batched in (True, False)
        )
        surplus = tuple(max(0, t - u) for t, u in zip(total, used, strict=True))
        row = Row("", "", "prepared beyond need", 1, 0, surplus, self.nothing)
        return ([row] if any(surplus) else []), sum(total)

    def rows(self, graph: RingGraph, times: int) -> list[Row]:
        """One row per (depth, kind) group and layer; the group's rounds go to its first member."""
        depth: dict[str, int] = {}
        groups: dict[tuple[int, str, int], list[RingNode]] = {}
        rows: list[Row] = []
        local = self.protocol.public_products_local
        for node in graph:
            level = max([depth[i] for i in node.inputs], default=0)
            key = price_key(node, [graph[i].type.public for i in node.inputs], local)
            if key is not None:
                groups.setdefault((level, key, _kind(node, key)), []).append(node)
                level += 1
            if node.body is not None:
                rows += self.rows(node.body, times * node.int_attr("count"))
                level += 1
            depth[node.name] = level
        for (_, key, _), members in groups.items():
            rows += [self.row(graph, node, key, times, first=node is members[0]) for node in members]
        return rows

    def row(self, graph: RingGraph, node: RingNode, key: str, times: int, *, first: bool) -> Row:
        """A node `times` times, of which the `first` of a group pays the rounds."""
        price, amount = self.prices[key], _amount(node, [graph[name] for name in node.inputs])
        needs = price.needs(amount)
        for need, n in needs.items():
            self.needs[need] = self.needs.get(need, 0) + times * n
        sent = self.sum(price.bytes(amount), *(self.supply(need, n, False) for need, n in needs.items()))
        rounds = price.rounds(amount) if first or not price.merged else self.nothing
        return Row(
            node.origin.layer,
            node.origin.graph_op,
            key,
            times,
            amount.n * times,
            tuple(times * v for v in sent),
            tuple(times * r for r in rounds),
        )

    def sum(self, *amounts: PerParty) -> PerParty:
        return _add(*amounts, parties=self.parties)


def _amount(node: RingNode, operands: list[RingNode]) -> Amount:
    """What a node buys."""
    n, shapes = node.type.elements, [o.type.shape for o in operands]
    if node.op == "dot":
        return Amount(n, terms=shapes[0][-1])
    if node.op in ("matmul", "block_matmul"):
        rows, columns = node.type.shape[-2:]
        return Amount(n, terms=shapes[0][-1], rows=rows, columns=columns, count=n // (rows * columns))
    if node.op == "trunc":
        return Amount(n, node.int_attr("bits"), node.int_attr("width"))
    return Amount(n, node.int_attr("bits")) if node.op == "lt" else Amount(n)


def _kind(node: RingNode, key: str) -> int:
    """What instructions must have in common to share rounds: their bits, or their size where they are truncations."""
    if key in ("trunc_safe", "trunc_local"):
        return node.type.elements
    return node.int_attr("bits") if node.op in ("lt", "trunc") else 0


def _add(*amounts: PerParty, parties: int) -> PerParty:
    return tuple(sum(column) for column in zip(*amounts, strict=True)) if amounts else (0,) * parties
