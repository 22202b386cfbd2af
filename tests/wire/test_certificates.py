"""Who shows another certificate than the one agreed on is turned away by MP-SPDZ itself, in every kind of protocol."""

import pytest
from by_hand import ByHand
from fake_home import soon
from forged import authority, signed_by
from mp_spdz_here import needs_mp_spdz

from mpcc.runtime.parties.keys import make_identity
from mpcc.runtime.parties.processes import free_ports

PROTOCOLS = ("ring", "dealer-ring", "semi2k")
TWO_PARTY = ("semi2k", "hemi", "temi")


def attacked(work, protocol, attacker, forge):
    """What the honest players say while `attacker` shows what `forge` makes of the others' keys, and trusts them."""
    with ByHand(work, protocol) as run:
        hosts = [f"127.0.0.1:{port}" for port in free_ports(len(run.roles))]
        forged = forge(run.identities)
        honest = [player for player in range(len(run.roles)) if player != attacker]
        for player in honest:
            run.start(player, hosts)
        run.start(attacker, hosts, forged, run.certificates | {forged.name: forged.certificate})
        assert soon(lambda: any(run.processes[p].poll() is not None for p in honest))  # others wait for longer
        ended = [p for p in honest if run.processes[p].poll() is not None]
        assert all(run.processes[p].returncode for p in ended)
        return [run.said(p) for p in ended]


@needs_mp_spdz
@pytest.mark.parametrize("protocol", [*PROTOCOLS, "hemi", "temi"])
def test_an_honest_run(work, protocol):
    with ByHand(work, protocol) as run:
        hosts = [f"127.0.0.1:{port}" for port in free_ports(len(run.roles))]
        for player in range(len(run.roles)):
            run.start(player, hosts)
        assert run.codes() == [0] * len(run.roles) and run.right()


@needs_mp_spdz
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_signed_with_a_partys_key(work, protocol):
    """Another party's name (the last player's) under a signature of the provider or, between two, of the client."""
    signer, attacker = (0, 1) if protocol in TWO_PARTY else (1, 2)
    said = attacked(work, protocol, attacker, lambda identities: signed_by(identities[signer], attacker))
    assert any("verify failed" in text for text in said), said


@needs_mp_spdz
@pytest.mark.parametrize("protocol", [*PROTOCOLS, "hemi", "temi"])
def test_a_certificate_that_nobody_knows(work, protocol):
    said = attacked(work, protocol, 1, lambda identities: make_identity(1))
    assert any("verify failed" in text for text in said), said


@needs_mp_spdz
def test_why_they_are_leaves(work):
    """Were the provider's certificate an authority, what it signs would pass for the helper."""
    provider = authority(1)
    with ByHand(work, "ring") as run:
        run.identities[1] = provider
        run.certificates["P1"] = provider.certificate
        hosts = [f"127.0.0.1:{port}" for port in free_ports(3)]
        forged = signed_by(provider, 2)
        for player in range(2):
            run.start(player, hosts)
        run.start(2, hosts, forged, run.certificates | {"P2": forged.certificate})
        assert run.codes() == [0, 0, 0] and run.right()
