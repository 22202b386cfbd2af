"""Keys and certificates in the form in which MP-SPDZ loads them.

A certificate is a leaf: it signs nothing. Engines trust whatever leads to a certificate they were given, so one that
could sign would let its owner make certificates in the name of every other party.

Party i loads P<i>.pem and P<i>.key from Player-Data. It accepts a peer j whose certificate is in that folder under the
hash of its subject (OpenSSL's directory look-up, what c_rehash makes) and whose common name is P<j>.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpcc.compiler.errors import EngineError

VALIDITY = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(days=1)
_SIGNS_HANDSHAKES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_BOTH_ENDS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True)
class Identity:
    """A party's self-signed certificate and private key, both PEM; `key_path` is where a key that stays is kept."""

    name: str
    certificate: bytes
    key: bytes
    key_path: Path | None = None


def make_identity(player: int, validity: datetime.timedelta = VALIDITY) -> Identity:
    """A fresh key pair for a player, with a certificate that is valid from yesterday on."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"P{player}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW if validity > datetime.timedelta() else now + validity - CLOCK_SKEW)
        .not_valid_after(now + validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_HANDSHAKES, critical=True)
        .add_extension(_BOTH_ENDS, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(name, certificate.public_bytes(serialization.Encoding.PEM), encoded)


def install(folder: Path, own: Identity, certificates: dict[str, bytes]) -> None:
    """Write one party's folder: its own key (mode 0600; a link to one that stays, so that there is no copy), and the
    certificate of every party with its hash link."""
    if own.key_path is not None:
        (folder / f"{own.name}.key").symlink_to(own.key_path.resolve())
    else:
        write_private(folder / f"{own.name}.key", own.key)
    for name, certificate in certificates.items():
        (folder / f"{name}.pem").write_bytes(certificate)
        (folder / f"{subject_hash(certificate)}.0").symlink_to(f"{name}.pem")


# ** keys that stay **
def fingerprint(certificate: bytes) -> str:
    """What people compare: sha256: and the SHA-256 of the certificate, in hexadecimal."""
    return "sha256:" + _loaded(certificate).fingerprint(hashes.SHA256()).hex()


def save_identity(folder: Path, role: str, identity: Identity) -> tuple[Path, Path]:
    """Write <role>.pem and <role>.key (0600); (certificate, key). FileExistsError rather than overwrite a key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, certificate = folder / f"{role}.key", folder / f"{role}.pem"
    write_private(key, identity.key)
    certificate.write_bytes(identity.certificate)
    return certificate, key


def check_certificate(certificate: bytes, role: str, player: int, wanted: str) -> None:
    """EngineError if a certificate is not the one whose fingerprint is `wanted`, not the role's, no leaf, or not valid
    now."""
    loaded = _loaded(certificate, role)
    if fingerprint(certificate) != wanted.strip().lower():
        raise EngineError(
            f"the certificate of the {role} is not the one expected: its fingerprint is {fingerprint(certificate)}",
            todo="ask the other side for its certificate and compare fingerprints",
        )
    if not _is_leaf(loaded):
        raise EngineError(
            f"the certificate of the {role} could sign certificates of other roles",
            todo=f"make the keys anew: mpcc keys --role {role}, and give the certificate to the others",
        )
    now = datetime.datetime.now(datetime.UTC)
    if now > loaded.not_valid_after_utc:
        raise EngineError(
            f"the certificate of the {role} expired on {loaded.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            todo=f"make a new one: mpcc keys --role {role}, and give it to the others",
        )
    if now < loaded.not_valid_before_utc:
        raise EngineError(f"the certificate of the {role} is not valid yet", todo="see whether the clocks are right")
    names = [str(a.value) for a in loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [f"P{player}"]:
        raise EngineError(f"the certificate of the {role} is one of another role", todo=f"mpcc keys --role {role}")


def _is_leaf(certificate: x509.Certificate) -> bool:
    """Whether it says that it signs no certificates. EngineError if its extensions cannot be read."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    except (ValueError, x509.DuplicateExtension):
        raise EngineError("a certificate is corrupt", todo="ask for it again") from None
    return not constraints.ca and not usage.key_cert_sign


def check_pair(identity: Identity, role: str) -> None:
    """EngineError if the key is none, or not that of the certificate."""
    encoding = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        own = serialization.load_pem_private_key(identity.key, None).public_key().public_bytes(*encoding)
    except (ValueError, TypeError):
        raise EngineError(f"the key of the {role} is corrupt", todo=f"mpcc keys --role {role}") from None
    if own != _loaded(identity.certificate, role).public_key().public_bytes(*encoding):
        raise EngineError(f"the key of the {role} does not belong to its certificate", todo=f"mpcc keys --role {role}")


def _loaded(certificate: bytes, role: str = "party") -> x509.Certificate:
    """The one certificate of a file: engines would trust every other one in it as well."""
    try:
        found, *more = x509.load_pem_x509_certificates(certificate)
        if more:
            raise EngineError(f"the certificate of the {role} is {1 + len(more)} certificates", todo="ask for it again")
        _ = found.subject, found.not_valid_before_utc, found.not_valid_after_utc  # else they are read when first used
        return found
    except (ValueError, x509.InvalidVersion):
        raise EngineError(f"the certificate of the {role} is corrupt", todo="ask for it again") from None


def subject_hash(certificate: bytes) -> str:
    """OpenSSL's X509_NAME_hash of the subject: the file name under which a certificate is looked up.

    It is the first four bytes, little-endian, of the SHA-1 of the canonical name: every attribute as a UTF8String in
    lower case with single blanks, and without the SEQUENCE around them.
    """
    canonical = b""
    for rdn in x509.load_pem_x509_certificate(certificate).subject.rdns:
        attributes = b"".join(
            _der(0x30, _oid(a.oid.dotted_string) + _der(0x0C, " ".join(str(a.value).split()).lower().encode()))
            for a in rdn
        )
        canonical += _der(0x31, attributes)
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def write_private(path: Path, content: bytes) -> None:
    """A new file that only its owner can read, from the moment it exists."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _der(tag: int, content: bytes) -> bytes:
    """A DER element with a length below 2^16."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = bytes([40 * first + second])
    for part in rest:
        digits = [part & 0x7F]
        while part := part >> 7:
            digits.append(0x80 | part & 0x7F)
        content += bytes(reversed(digits))
    return _der(0x06, content)
