"""Whole sessions of real parties, each with a tunnel: what is on the wire, what strangers can do, what is refused."""

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import psutil
import pytest
from by_hand import CASE, job_of
from fake_home import processes_below
from forged import signed_by
from mp_spdz_here import needs_mp_spdz
from recorder import APPLICATION, Recorder, records
from ring_cases import run_emulator
from spu_jobs import small_job
from test_loopback_only import needs_filter, outer_addresses

from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz import session as mp_spdz
from mpcc.runtime.mp_spdz.home import setup_of
from mpcc.runtime.parties.agreement import part
from mpcc.runtime.parties.keys import make_identity
from mpcc.runtime.parties.processes import Limits, free_ports
from mpcc.runtime.parties.routes import split_address
from mpcc.runtime.parties.site import Site
from mpcc.runtime.spu import session as spu

KINDS = ("ring", "dealer-ring", "semi2k")  # of links: MP-SPDZ has other code for each
LIMITS = Limits(start=60.0, idle=30.0)
PARTS = {"ir": part(b"ir")}
HOSTILE = (2**63 - 1).to_bytes(8, "little")
PUSHES = (HOSTILE, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\0\0P1", b"mpcc-link 1\n\x04\x00\x22" + bytes(34))


def sites(roles, stack, shown=None):
    """A site for each role, with a recorder before everybody's public address; `shown` are other identities."""
    identities = [make_identity(player) for player in range(len(roles))]
    certificates = {i.name: i.certificate for i in identities}
    own = [f"127.0.0.1:{port}" for port in free_ports(len(roles))]
    recorders = [stack.enter_context(Recorder(split_address(address))) for address in own]
    seen = [f"127.0.0.1:{recorder.port}" for recorder in recorders]
    found = {}
    for player, role in enumerate(roles):
        addresses = tuple(own[p] if p == player else seen[p] for p in range(len(roles)))
        identity = (shown or (lambda player, all_: all_[player]))(player, identities)
        found[role] = Site({role: identity}, certificates | {identity.name: identity.certificate}, addresses)
    return found, recorders


def together(sites, one):
    """What each role's session gives, or why it gave nothing."""

    def run(role):
        try:
            return one(role, sites[role])
        except EngineError as error:
            return error

    with ThreadPoolExecutor(len(sites)) as pool:
        return dict(zip(sites, pool.map(run, sites), strict=True))


def of_mp_spdz(protocol, change=None):
    """One role's session, of a program that `change` may change for it."""
    job = job_of(protocol)
    program = replace(job.program, parts=PARTS)

    def one(role, site, limits=LIMITS):
        return mp_spdz.serve(
            (change or (lambda role, program: program))(role, program),
            [job.client_stream] if role == "client" else None,
            weights=job.provider_stream if role == "provider" else None,
            site=site,
            limits=limits,
        )

    return one


def of_spu(job):
    def one(role, site, limits=LIMITS):
        return spu.serve(
            job.program,
            [job.client] if role == "client" else None,
            public=job.public,
            weights=job.provider if role == "provider" else None,
            parts=PARTS,
            site=site,
            limits=limits,
        )

    return one


@contextlib.contextmanager
def pestered(folder, own, outer):
    """While this lasts, everything that listens is told what does not belong there; where it was.

    The public ports of the players at their addresses `own`, any other one at the address that other hosts use.
    """
    over, told = threading.Event(), set()
    public = {split_address(address) for address in own}

    def pester():
        while not over.wait(0.02):
            for place in public | {(outer, port) for port in listening(folder)} - {(outer, p) for _, p in public}:
                for content in PUSHES if place in public else PUSHES[:1]:
                    with contextlib.suppress(OSError), socket.create_connection(place, 0.2) as connection:
                        connection.sendall(content)
                        told.add(place)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def listening(folder):
    """Ports at which the engines below a folder listen; those of the tunnels' local ends are the loopback's."""
    for pid in processes_below(folder):
        with contextlib.suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "0.0.0.0":
                    yield connection.laddr.port


def application_bytes(recorders):
    """The bytes inside TLS of whoever began with it. NotTls if there is anything else."""
    both = [(bytes(c.sent), bytes(c.received)) for recorder in recorders for c in recorder.connections]
    found = [record for pair in both for stream in pair for record in records(stream)]
    return sum(size for kind, size in found if kind == APPLICATION)


# ** what is on the wire, and what strangers can do **
@needs_mp_spdz
@needs_filter
@pytest.mark.parametrize("protocol", KINDS)
def test_mp_spdz(work, protocol):
    """TLS only; nothing that is said to any port, while all is set up and after that, ends the session; and it counts
    what it would count without tunnels."""
    roles, job = setup_of(protocol).roles, job_of(protocol)
    alone = mp_spdz.serve(job.program, [job.client_stream], weights=job.provider_stream, limits=LIMITS)
    with ExitStack() as stack:
        found, recorders = sites(roles, stack)
        own = [site.addresses[player] for player, site in enumerate(found.values())]
        with pestered(work, own, outer_addresses()[0]) as told:
            done = together(found, of_mp_spdz(protocol))
        assert not [error for error in done.values() if isinstance(error, EngineError)], done
        assert told >= {split_address(address) for address in own}
        assert application_bytes(recorders) > 8 * job.client_stream.size
    wanted = run_emulator(CASE)
    assert all(np.array_equal(done["client"].answers[0][name], wanted[name]) for name in wanted)
    for player, role in enumerate(roles):
        assert done[role].measured[0].bytes_by_party == (alone.measured[0].bytes_by_party[player],)
    assert sum(one.measured[0].input_bytes for one in done.values()) == alone.measured[0].input_bytes
    assert sum(one.weights_bytes for one in done.values()) == alone.weights_bytes


@pytest.mark.spu
def test_spu(work):
    job, wanted = small_job()
    with ExitStack() as stack:
        found, recorders = sites(("client", "provider", "helper"), stack)
        own = [site.addresses[player] for player, site in enumerate(found.values())]
        with pestered(work, own, "127.0.0.1") as told:
            done = together(found, of_spu(job))
        assert not [error for error in done.values() if isinstance(error, EngineError)], done
        assert told == {split_address(address) for address in own}  # no other port there is
        assert application_bytes(recorders) > 4 * job.client["x"].size
    (answer,) = done["client"].answers[0].values()
    assert np.abs(answer - wanted).max() < 5e-3


# ** what is refused before anything is shared **
SHORT = Limits(start=8.0, idle=8.0)


def refused(roles, one, text, shown=None):
    """Nobody has an answer, and somebody's only line says `text`."""
    with ExitStack() as stack:
        found, _ = sites(roles, stack, shown)
        done = together(found, lambda role, site: one(role, site, SHORT))
    assert all(isinstance(error, EngineError) and error.exit_code == 3 for error in done.values()), done
    assert any(text in str(error) for error in done.values()), done
    return done


def forged(player, identities):
    """The last player shows a certificate in its own name that the player before it signed."""
    last = len(identities) - 1
    return signed_by(identities[last - 1], last) if player == last else identities[player]


@needs_mp_spdz
@pytest.mark.parametrize("protocol", KINDS)
def test_a_certificate_signed_with_a_partys_key(work, protocol):
    refused(setup_of(protocol).roles, of_mp_spdz(protocol), "a party was turned away", forged)


@pytest.mark.spu
def test_a_certificate_signed_with_a_partys_key_for_spu(work):
    refused(("client", "provider", "helper"), of_spu(small_job()[0]), "a party was turned away", forged)


@needs_mp_spdz
def test_another_program(work):
    """What differs is named, to both sides of the difference."""

    def change(role, program):
        return replace(program, parts={"ir": part(b"other")}) if role == "provider" else program

    done = refused(("client", "provider"), of_mp_spdz("semi2k", change), "the provider does not run the same program")
    for role, other in (("client", "provider"), ("provider", "client")):
        assert f"the {other} does not run the same program: ir differs" in str(done[role])


@pytest.mark.spu
@needs_mp_spdz
def test_another_engine(work):
    """And another source."""
    job, _ = small_job()

    def one(role, site, limits):
        return (of_spu(job) if role == "provider" else of_mp_spdz("ring"))(role, site, limits)

    refused(("client", "provider", "helper"), one, "the provider does not run the same program: engine, source")
