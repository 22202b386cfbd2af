"""What is on the wire between the parties, recorded: TLS records and nothing else."""

from contextlib import ExitStack

import pytest
from by_hand import ByHand, job_of
from mp_spdz_here import needs_mp_spdz
from recorder import APPLICATION, NotTls, Recorder, records, without_greeting
from spu_by_hand import SpuByHand
from tunnels import Tunnels

from mpcc.compiler.protocols import PROTOCOLS
from mpcc.runtime.mp_spdz.home import setup_of
from mpcc.runtime.parties.processes import free_ports
from mpcc.runtime.parties.routes import mp_spdz_routes, ports_needed, split_address

OWN_TLS = ("ring", "dealer-ring", "semi2k")


def application_bytes(recorders, strip=bytes):
    """The bytes inside TLS on all connections; NotTls if there are others."""
    connections = [c for recorder in recorders for c in recorder.connections]
    found = [records(strip(bytes(c.sent))) + records(bytes(c.received)) for c in connections]
    return sum(size for one in found for kind, size in one if kind == APPLICATION)


def recorded(stack, players, addresses=None):
    """A recorder before each player's address; by default addresses are chosen that are free then."""
    recorders = [stack.enter_context(Recorder()) for _ in range(players)]
    chosen = addresses or [f"127.0.0.1:{port}" for port in free_ports(players)]
    for recorder, address in zip(recorders, chosen, strict=True):
        recorder.target = split_address(address)
    return chosen, recorders


def seen_by(player, addresses, recorders):
    """Everybody else's address is the recorder's before it."""
    return tuple(
        address if other == player else f"127.0.0.1:{recorders[other].port}" for other, address in enumerate(addresses)
    )


@needs_mp_spdz
@pytest.mark.parametrize("protocol", OWN_TLS)
def test_mp_spdz(work, protocol):
    """Its own TLS; before it each connection says its name in clear, and nothing else."""
    with ByHand(work, protocol) as run, ExitStack() as stack:
        addresses, recorders = recorded(stack, len(run.roles))
        for player in range(len(run.roles)):
            run.start(player, seen_by(player, addresses, recorders))
        assert run.codes() == [0] * len(run.roles) and run.right()
        assert application_bytes(recorders, without_greeting) > 8 * run.job.client_stream.size


@needs_mp_spdz
def test_without_encryption_it_is_seen(work):
    """The checker finds the plain text of a party program that was not told to encrypt."""
    with ByHand(work, "semi2k") as run, ExitStack() as stack:
        addresses, recorders = recorded(stack, 2)
        for player in range(2):
            run.start(player, seen_by(player, addresses, recorders), without=["-e"])
        assert run.codes() == [0, 0]
        with pytest.raises(NotTls):
            application_bytes(recorders, without_greeting)


@needs_mp_spdz
def test_keys_of_hemi_are_seen(work):
    """Why hemi and temi need the tunnel: MP-SPDZ exchanges their public keys in clear (a PlainPlayer in HemiPrep.hpp
    and TemiPrep.hpp), whatever it was told, so that who is on the way could give each side keys of its own."""
    with ByHand(work, "hemi") as run, ExitStack() as stack:
        addresses, recorders = recorded(stack, 2)
        for player in range(2):
            run.start(player, seen_by(player, addresses, recorders))
        assert run.codes() == [0, 0]
        with pytest.raises(NotTls):
            application_bytes(recorders, without_greeting)


def tunnelled(stack, tunnels):
    """Tunnels that are open, with a recorder before each public address."""
    addresses, recorders = recorded(stack, len(tunnels.plans), tunnels.plans[0].addresses)
    for player in range(len(tunnels.plans)):
        tunnels.change(player, addresses=seen_by(player, addresses, recorders))
    opened = tunnels.start()
    assert all(not isinstance(t, Exception) for t in opened), opened
    return opened, recorders


@needs_mp_spdz
@pytest.mark.parametrize("protocol", tuple(PROTOCOLS))
def test_mp_spdz_through_tunnels(work, protocol):
    """Its names are inside TLS too, and no engine's port is the public one."""
    roles = setup_of(protocol).roles
    routes = [mp_spdz_routes(p, len(roles), free_ports(ports_needed(p))) for p in range(len(roles))]
    (work / "tunnels").mkdir()
    with Tunnels(work / "tunnels", routes, roles) as tunnels, ExitStack() as stack:
        opened, recorders = tunnelled(stack, tunnels)
        with ByHand(work, protocol) as run:
            for player in range(len(roles)):
                run.start(player, routes[player].hosts)
            assert run.codes() == [0] * len(roles) and run.right()
        for tunnel in opened:
            tunnel.close()
        assert application_bytes(recorders) > 8 * job_of(protocol).client_stream.size


@pytest.mark.spu
def test_spu_through_tunnels(work):
    """SPU itself has no TLS here, and no port: only sockets in the parties' folders."""
    with SpuByHand(work) as run, Tunnels(work / "tunnels") as tunnels, ExitStack() as stack:
        run.stand_in(tunnels)
        opened, recorders = tunnelled(stack, tunnels)
        run.start(opened)
        assert run.listening() == []
        assert run.codes() == [0, 0, 0] and run.right()
        for tunnel in opened:
            tunnel.close()
        assert application_bytes(recorders) > 4 * run.job.client["x"].size
