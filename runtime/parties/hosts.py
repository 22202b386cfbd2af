"""hosts.toml: where each role runs and by which certificate it is known. The same file serves every role.

    [client]
    host = "client.example.org"
    port = 5000
    certificate = "client.pem"        # relative to this file
    fingerprint = "sha256:5f..."

and so on for each role. A role's own key stands beside its certificate (client.key), or is named by `key`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpcc.compiler.errors import EngineError, MpccError
from mpcc.compiler.protocols import PROTOCOLS
from mpcc.compiler.toml_file import read_toml
from mpcc.compiler.types import printable
from mpcc.runtime.parties.keys import Identity, check_certificate, check_pair
from mpcc.runtime.parties.site import Site

_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
_LONGEST_NAME = 1000
_LARGEST_PEM = 2**16  # bytes
_FIELDS = {"host": str, "port": int, "certificate": str, "fingerprint": str}


@dataclass(frozen=True)
class Host:
    """One role's entry; paths are absolute or relative to the working directory."""

    role: str
    address: str
    certificate: Path
    key: Path
    fingerprint: str


def read_hosts(path: Path, roles: Sequence[str]) -> tuple[Host, ...]:
    """The entries of the roles of a protocol, by player.

    Raises:
        MpccError: not readable, not TOML, or an entry is missing or wrong.
    """
    table = read_toml(path, "the file of hosts")
    hosts = tuple(_host(path, table, role) for role in roles)
    if len({h.address for h in hosts}) < len(hosts):
        raise MpccError("two roles have the same host and port", where=str(path))
    return hosts


def _host(path: Path, table: dict[str, Any], role: str) -> Host:
    entry = table.get(role)
    if not isinstance(entry, dict):
        raise MpccError(f"the file of hosts has no [{role}]", where=str(path))
    for field, kind in _FIELDS.items():
        if not isinstance(entry.get(field), kind) or isinstance(entry.get(field), bool):
            raise MpccError(f"[{role}] has no {field}", where=str(path))
    if not _HOST.match(entry["host"]) or not 0 < entry["port"] < 1 << 16:
        raise MpccError(f"[{role}] has a host or port that cannot be", where=str(path))
    for field in ("certificate", "key"):
        if len(name := str(entry.get(field, ""))) > _LONGEST_NAME or not printable(name):
            raise MpccError(f"[{role}] has a {field} that cannot be", where=str(path))
    certificate = path.parent / entry["certificate"]
    key = path.parent / str(entry["key"]) if "key" in entry else certificate.with_suffix(".key")
    return Host(role, f"{entry['host']}:{entry['port']}", certificate, key, entry["fingerprint"])


def site_of(path: Path, role: str, roles: Sequence[str]) -> Site:
    """The one role of a protocol's `roles` that runs here, after every certificate was checked.

    Raises:
        MpccError: the file of hosts is wrong, or there is no such role.
        EngineError: a certificate is missing, expired or another than expected; the key is missing, open to others, or
            not the certificate's.
    """
    if role not in roles:
        raise MpccError(f"there is no role {role!r}", todo=f"roles: {', '.join(roles)}")
    hosts = read_hosts(path, roles)
    certificates = {}
    for player, host in enumerate(hosts):
        content = _read(host.certificate, f"the certificate of the {host.role}")
        check_certificate(content, host.role, player, host.fingerprint)
        certificates[f"P{player}"] = content
    player = roles.index(role)
    own = hosts[player]
    key = _read(own.key, f"the key of the {role}")
    if own.key.stat().st_mode & 0o077:
        raise EngineError(f"the key of the {role} can be read by others", where=str(own.key), todo="chmod 600 it")
    identity = Identity(f"P{player}", certificates[f"P{player}"], key, own.key)
    check_pair(identity, role)
    return Site({role: identity}, certificates, tuple(h.address for h in hosts))


def player_of(role: str) -> int:
    """The player's number of a role, the same in every protocol that has it. MpccError if there is none."""
    for protocol in PROTOCOLS.values():
        if role in protocol.roles:
            return protocol.roles.index(role)
    known = dict.fromkeys(r for d in PROTOCOLS.values() for r in d.roles)
    raise MpccError(f"there is no role {role!r}", todo=f"roles: {', '.join(known)}")


def entry_of(role: str, certificate: Path, print_: str) -> str:
    """The lines for hosts.toml that a new certificate needs."""
    return (
        f'[{role}]\nhost = "127.0.0.1"\nport = {5000 + player_of(role)}\ncertificate = "{certificate.name}"\n'
        f'fingerprint = "{print_}"\n'
    )


def _read(path: Path, what: str) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_PEM + 1)
    except OSError as error:
        raise EngineError(f"cannot read {what}: {error.strerror}", where=str(path)) from None
    if len(content) > _LARGEST_PEM:
        raise EngineError(f"{what} is larger than {_LARGEST_PEM} bytes", where=str(path))
    return content
