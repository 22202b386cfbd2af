"""Certificates that mpcc does not make: authorities, and what somebody signs in the name of another party."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mpcc.runtime.parties.keys import Identity

LEAF = x509.BasicConstraints(ca=False, path_length=None)
CA = x509.BasicConstraints(ca=True, path_length=None)


def authority(player: int) -> Identity:
    """A self-signed certificate that may sign others."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _made(player, key, _name(player), key, CA)


def signed_by(signer: Identity, player: int, constraints: x509.BasicConstraints | None = LEAF) -> Identity:
    """A certificate in the name of `player`, signed with the key of another party."""
    signing = serialization.load_pem_private_key(signer.key, None)
    issuer = x509.load_pem_x509_certificate(signer.certificate).subject
    return _made(player, ec.generate_private_key(ec.SECP256R1()), issuer, signing, constraints)


def _made(player, key, issuer, signing, constraints) -> Identity:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(player))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    made = builder.sign(signing, hashes.SHA256())
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(f"P{player}", made.public_bytes(serialization.Encoding.PEM), encoded)


def _name(player: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"P{player}")])
