"""Running parties: all of them on this machine, or one whose every connection goes through mpcc's tunnel.

Where all parties run here they are one user's, and share one program: there is nobody to authenticate and nothing to
agree on, so they go without a tunnel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpcc.compiler.errors import InternalError
from mpcc.runtime.parties.agreement import Parts
from mpcc.runtime.parties.folders import environment
from mpcc.runtime.parties.keys import write_private
from mpcc.runtime.parties.processes import Consequence, Limits, Party, run_parties
from mpcc.runtime.parties.routes import Routes
from mpcc.runtime.parties.site import Site
from mpcc.runtime.parties.tunnel import Plan, Tunnel, open_tunnel
from mpcc.runtime.parties.watchdog import Watchdog

CERTIFICATE, KEY = "tunnel.pem", "tunnel.key"
_CAUSE_SECONDS = 5.0


def run_tunnelled(
    party: Party,
    watchdog: Watchdog,
    limits: Limits,
    plan: Plan,
    watch: Callable[[], None] = lambda: None,
    before: Callable[[Tunnel], None] = lambda tunnel: None,
) -> None:
    """Meet the other parties, agree with them on program and session, and run this one to its end.

    `before` is called when all have agreed, before the engine starts. EngineError as `open_tunnel` and `run_parties`,
    or if another party is lost.
    """
    tunnel = open_tunnel(watchdog, party.folder, plan, limits.start)

    def watched() -> None:
        watch()
        tunnel.check()

    try:
        before(tunnel)
        run_parties([party], watchdog, environment(), limits, tunnel.routes.hosts, watched)
        tunnel.close()  # only now: whoever leaves without a farewell is lost to the others
    except Consequence:
        _wait_for_cause(tunnel)
        raise
    finally:
        watchdog.end(tunnel.process)


def _wait_for_cause(tunnel: Tunnel) -> None:
    """EngineError that names who is lost; an engine notices a moment before the tunnel does."""
    deadline = time.monotonic() + _CAUSE_SECONDS
    while time.monotonic() < deadline:
        tunnel.check()
        time.sleep(0.05)


def plan_of(site: Site, party: Party, roles: Sequence[str], parts: Parts, routes: Routes) -> Plan:
    """What the tunnel of the party of a site has to know; `roles` are those of all players.

    Its certificate is written into its folder. Its key is read where it stands; one that stands nowhere is written too.
    """
    if site.addresses is None or set(site.identities) != {party.role}:
        raise InternalError("a tunnel is for the one role of a host")
    own = site.identities[party.role]
    certificate = party.folder / CERTIFICATE
    certificate.write_bytes(own.certificate)
    return Plan(
        player=party.player,
        roles=tuple(roles),
        addresses=site.addresses,
        certificates=tuple(site.certificates[f"P{player}"] for player in range(len(roles))),
        certificate=certificate,
        key=own.key_path or _written(party.folder / KEY, own.key),
        parts=parts,
        routes=routes,
    )


def _written(path: Path, key: bytes) -> Path:
    write_private(path, key)
    return path
