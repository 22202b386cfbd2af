"""Which roles run on this machine, and how the others are reached and known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpcc.runtime.parties.keys import Identity, make_identity


@dataclass(frozen=True)
class Site:
    """The roles that run here with their keys, everybody's certificates by common name, and the addresses of all
    players (host:port); without addresses everybody is on this machine."""

    identities: dict[str, Identity]
    certificates: dict[str, bytes]
    addresses: tuple[str, ...] | None = None


def local_site(roles: Sequence[str]) -> Site:
    """All roles, given in the order of the players, on this machine, with keys for one session."""
    identities = {role: make_identity(player) for player, role in enumerate(roles)}
    return Site(identities, {i.name: i.certificate for i in identities.values()})
