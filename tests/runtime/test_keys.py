"""Certificates as MP-SPDZ wants them."""

import ssl

import pytest

from mpcc.runtime.parties.keys import install, make_identity, subject_hash


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
