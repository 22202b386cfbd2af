"""Certificates as MP-SPDZ wants them."""

import ssl

import pytest
from forged import authority, signed_by

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.keys import check_certificate, fingerprint, install, make_identity, subject_hash


@pytest.mark.parametrize("player, expected", [(0, "690ad341"), (1, "0c19e31f"), (2, "786af600")])
def test_subject_hash_is_that_of_openssl(player, expected):
    """Reference: openssl x509 -hash."""
    assert subject_hash(make_identity(player).certificate) == expected


@pytest.fixture
def folders(tmp_path):
    identities = [make_identity(i) for i in range(2)]
    certificates = {i.name: i.certificate for i in identities}
    for identity in identities:
        (tmp_path / identity.name).mkdir()
        install(tmp_path / identity.name, identity, certificates)
    return tmp_path


def context(folder, name, purpose):
    result = ssl.SSLContext(purpose)
    result.check_hostname = False
    result.verify_mode = ssl.CERT_REQUIRED
    result.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    result.load_verify_locations(capath=str(folder))
    return result


def handshake(server_context, client_context):
    """Shake hands over two pipes in memory; SSLError if one side refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    open_sides = [client, server]
    for _ in range(20):
        for side in list(open_sides):
            try:
                side.do_handshake()
                open_sides.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not open_sides:
            return client.getpeercert()
    raise AssertionError("no handshake")


def test_parties_accept_each_other(folders):
    peer = handshake(
        context(folders / "P0", "P0", ssl.PROTOCOL_TLS_SERVER), context(folders / "P1", "P1", ssl.PROTOCOL_TLS_CLIENT)
    )
    assert peer["subject"] == ((("commonName", "P0"),),)


def test_a_foreign_certificate_is_refused(folders, tmp_path):
    foreign = make_identity(1)
    (tmp_path / "other").mkdir()
    install(tmp_path / "other", foreign, {"P1": foreign.certificate, "P0": (folders / "P0" / "P0.pem").read_bytes()})
    server = context(folders / "P0", "P0", ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ssl.SSLError):
        handshake(server, context(tmp_path / "other", "P1", ssl.PROTOCOL_TLS_CLIENT))


def test_keys_are_private(folders):
    assert (folders / "P0" / "P0.key").stat().st_mode & 0o777 == 0o600
    assert not (folders / "P1" / "P0.key").exists()


def test_a_certificate_that_a_party_signed_is_refused(folders, tmp_path):
    """The provider's own key signs a certificate in the name of another party."""
    provider = make_identity(1)
    (tmp_path / "trusting").mkdir()
    install(tmp_path / "trusting", make_identity(0), {"P1": provider.certificate})
    (tmp_path / "trusting" / "P0.pem").write_bytes((folders / "P0" / "P0.pem").read_bytes())
    (tmp_path / "trusting" / "P0.key").write_bytes((folders / "P0" / "P0.key").read_bytes())
    forged = signed_by(provider, 2)
    (tmp_path / "P2.pem").write_bytes(forged.certificate + provider.certificate)
    (tmp_path / "P2.key").write_bytes(forged.key)
    attacker = context(tmp_path, "P2", ssl.PROTOCOL_TLS_CLIENT)
    attacker.load_verify_locations(folders / "P0" / "P0.pem")
    with pytest.raises(ssl.SSLError, match="invalid CA certificate"):
        handshake(context(tmp_path / "trusting", "P0", ssl.PROTOCOL_TLS_SERVER), attacker)


@pytest.mark.parametrize("make", [authority, lambda player: signed_by(authority(0), player, constraints=None)])
def test_only_leaves_are_accepted(make):
    """Also one that does not say what it is: engines would take it for an authority."""
    found = make(1).certificate
    with pytest.raises(EngineError, match="provider could sign certificates of other roles") as caught:
        check_certificate(found, "provider", 1, fingerprint(found))
    assert "mpcc keys --role provider" in str(caught.value.todo)


def test_a_leaf_is_accepted():
    found = make_identity(1).certificate
    check_certificate(found, "provider", 1, fingerprint(found))


def test_a_file_holds_one_certificate():
    """Engines would trust the second one too, and the fingerprint is that of the first."""
    found = make_identity(1).certificate
    with pytest.raises(EngineError, match="certificate of the provider is 2 certificates"):
        check_certificate(found + authority(0).certificate, "provider", 1, fingerprint(found))
