"""What a ring program costs, derived by counting its primitives.

Bytes add up. Rounds follow the schedule that the MP-SPDZ compiler makes of the emitted source: independent instructions
of one kind at the same depth (communicating operations on the longest path to them) share their rounds, instructions of
different kinds do not. A loop costs its body times its count.

Where a protocol prepares material (triples, random bits), an operation's bytes include what is sent to prepare its own;
what MP-SPDZ prepares beyond that, since it works in batches, is a row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpcc.compiler.cost.network import Network, network_of
from mpcc.compiler.cost.prices import Amount, Need, PerParty, Price, Protocol
from mpcc.compiler.cost.protocols.replicated import PROTOCOLS
from mpcc.compiler.errors import MpccError
from mpcc.compiler.ring.ir import RingGraph, RingNode


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
    extra: dict[str, float] = field(default_factory=dict)

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


def price_key(node: RingNode, public: Iterable[bool], public_products_local: bool = False) -> str | None:
    """The price list's entry for a node, or None where it is local. `public` tells of each operand."""
    if node.op in ("mul", "dot", "select"):
        return None if any(public) and node.op != "select" else "dot" if node.op == "dot" else "mul"
    if node.op in ("matmul", "block_matmul"):
        # elsewhere a public matrix is shared trivially: the fast product wants shares
        return None if (any(public) if public_products_local else all(public)) else "matmul"
    if node.op == "trunc":
        return f"trunc_{node.str_attr('variant')}"
    return node.op if node.op in ("lt", "reveal") else None


def estimate(graph: RingGraph, protocol: str, *, network: str | Path | Network = "lan") -> Cost:
    """Cost of one inference of a scheduled ring graph on a network: a preset, a TOML file, or a `Network`.

    Raises:
        MpccError: no price list for the protocol, or no such network.
    """
    table = PROTOCOLS.get(protocol)
    if table is None:
        raise MpccError(f"no costs for the protocol {protocol!r}", todo=f"known: {', '.join(PROTOCOLS)}")
    network = network_of(network)
    needs: dict[Need, int] = {}
    rows = _rows(graph, table, 1, needs)
    surplus, offline = _prepared(table, needs)
    rows += surplus
    inputs = _input_bytes(graph, table)
    weights = sum(
        math.prod(n.type.shape) * len(n.strs_attr("tensors"))
        for n, _ in graph.walk()
        if n.op == "param" and not n.type.public
    )
    provisioning = sum(table.prices["input_provider"].bytes(Amount(weights)))
    revealed = [r for r in rows if r.primitive == "reveal"]
    inputs += sum(r.bytes for r in revealed)
    return Cost(
        protocol,
        tuple(r for r in rows if r.primitive != "reveal"),
        inputs,
        provisioning,
        network,
        bytes_offline=offline,
        parties=table.parties,
    )


def _input_bytes(graph: RingGraph, table: Protocol) -> int:
    total = 0
    for node in graph:
        if node.op == "input":
            key = "input_public" if node.type.public else "input_client"
            total += sum(table.prices[key].bytes(Amount(node.type.elements)))
    return total


def _prepared(table: Protocol, needs: Mapping[Need, int]) -> tuple[list[Row], int]:
    """What batches of preparation cost beyond what is used, and the bytes of all preparation."""
    total = _add(*(table.supply(need, n, True) for need, n in needs.items()), parties=table.parties)
    used = _add(*(table.supply(need, n, False) for need, n in needs.items()), parties=table.parties)
    surplus = tuple(max(0, t - u) for t, u in zip(total, used, strict=True))
    row = Row("", "", "prepared beyond need", 1, 0, surplus, (0,) * table.parties)
    return ([row] if any(surplus) else []), sum(total)


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


def _bytes(price: Price, amount: Amount, table: Protocol) -> PerParty:
    """What is sent while the primitive runs, and to prepare what it needs."""
    prepared = [table.supply(need, n, False) for need, n in price.needs(amount).items()]
    return _add(price.bytes(amount), *prepared, parties=table.parties)


def _rows(graph: RingGraph, table: Protocol, times: int, needs: dict[Need, int]) -> list[Row]:
    """One row per (depth, kind) group and layer; the group's rounds go to its first member. `needs` is added up."""
    depth: dict[str, int] = {}
    public: dict[str, bool] = {n.name: n.type.public for n in graph}
    groups: dict[tuple[int, str, int], list[RingNode]] = {}
    rows: list[Row] = []
    for node in graph:
        level = max((depth[i] for i in node.inputs), default=0)
        key = price_key(node, [public[i] for i in node.inputs], table.public_products_local)
        if key is not None:
            groups.setdefault((level, key, _kind(node, key)), []).append(node)
            level += 1
        if node.body is not None:
            rows += _rows(node.body, table, times * node.int_attr("count"), needs)
            level += 1
        depth[node.name] = level
    for (_, key, _), members in groups.items():
        price = table.prices[key]
        for i, node in enumerate(members):
            amount = _amount(node, [graph[name] for name in node.inputs])
            for need, n in price.needs(amount).items():
                needs[need] = needs.get(need, 0) + times * n
            rounds = price.rounds(amount) if i == 0 or not price.merged else (0,) * table.parties
            rows.append(
                Row(
                    node.origin.layer,
                    node.origin.graph_op,
                    key,
                    times,
                    amount.n * times,
                    tuple(times * v for v in _bytes(price, amount, table)),
                    tuple(times * r for r in rounds),
                )
            )
    return rows


def _kind(node: RingNode, key: str) -> int:
    """What instructions must have in common to share rounds: their bits, or their size where they are truncations."""
    if key in ("trunc_safe", "trunc_local"):
        return node.type.elements
    return node.int_attr("bits") if node.op in ("lt", "trunc") else 0


def _add(*amounts: PerParty, parties: int) -> PerParty:
    return tuple(sum(column) for column in zip(*amounts, strict=True)) if amounts else (0,) * parties
