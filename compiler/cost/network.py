"""Networks: how fast one is decides which form of a program is the fastest.

A network of one's own is a TOML file:

    bandwidth_mbit_per_s = 100    # of one party, one way
    round_trip_ms = 40
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpcc.compiler.errors import MpccError
from mpcc.compiler.toml_file import read_toml

LARGEST = 1e12  # of both numbers
KEYS = ("bandwidth_mbit_per_s", "round_trip_ms")


@dataclass(frozen=True)
class Network:
    """`name` is a preset's or the file's; bits per second of one party, seconds there and back."""

    name: str
    bandwidth: float
    round_trip: float

    def seconds(self, bytes_of_busiest: int, rounds: int) -> float:
        """Time on the network alone: the busiest party's bytes at the bandwidth, and half a round trip per round."""
        return bytes_of_busiest * 8 / self.bandwidth + rounds * self.round_trip / 2

    def __str__(self) -> str:
        return f"{self.name} ({self.bandwidth / 1e6:g} Mbit/s, {self.round_trip * 1e3:g} ms round trip)"


NETWORKS = {n.name: n for n in (Network("local", 8e9, 2e-5), Network("lan", 1e9, 5e-4), Network("wan", 1e8, 4e-2))}


def network_of(choice: str | Path | Network) -> Network:
    """A preset by its name, or what a TOML file says.

    Raises:
        MpccError: neither a preset nor a file that describes a network.
    """
    if isinstance(choice, Network):
        return choice
    if str(choice) in NETWORKS:
        return NETWORKS[str(choice)]
    path = Path(choice)
    if path.suffix != ".toml" and not path.exists():
        known = ", ".join(NETWORKS)
        raise MpccError(f"unknown network {str(choice)!r}", todo=f"choose one of: {known}, or a TOML file")
    return _described(path)


def _described(path: Path) -> Network:
    table = read_toml(path, "the network")
    if unknown := [key for key in table if key not in KEYS]:
        raise MpccError(f"the network has no {unknown[0][:60]!r}", where=str(path), todo=f"it has: {', '.join(KEYS)}")
    bandwidth, round_trip = (_number(table, key, path) for key in KEYS)
    if bandwidth == 0:
        raise MpccError(f"{KEYS[0]} must be above 0", where=str(path))
    return Network(path.stem, bandwidth * 1e6, round_trip * 1e-3)


def _number(table: dict[str, object], key: str, path: Path) -> float:
    value = table.get(key)
    if value is None:
        raise MpccError(f"the network says no {key}", where=str(path), todo=f"write {key} = NUMBER")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:  # false of nan, too
        raise MpccError(f"{key} is not a number of 0 or more, up to {LARGEST:g}", where=str(path))
    return float(value)
