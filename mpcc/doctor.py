"""What is here and what is missing: engines, party programs, ports, certificates, packages, memory and disk."""

from __future__ import annotations

import datetime
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.compiler.errors import MpccError
from mpcc.compiler.protocols import PROTOCOLS
from mpcc.compiler.toml_file import read_toml
from mpcc.runtime.engine import Finding, Options
from mpcc.runtime.engines import ENGINES
from mpcc.sizes import size

if TYPE_CHECKING:
    from mpcc.program import Program

ELEMENT_BYTES = 16  # a share of one ring element: two words in the replicated protocols
SOON = datetime.timedelta(days=7)
EXPECTED = (
    "torch",
    "transformers",
    "peft",
    "numpy",
    "networkx",
    "jinja2",
    "safetensors",
    "typer",
    "rich",
    "cryptography",
    "tokenizers",
)


def examine(program: Program | None = None, *, hosts: Path | None = None) -> list[Finding]:
    """All checks. What one engine lacks fails only where no other secure engine can run the program (or, without one, a
    program of the simplest protocol).
    """
    wanted = program.protocol if program is not None else None
    lines = [_python(), *_packages(), *_engines(wanted), _ports(_parties(wanted))]
    if hosts is not None:
        lines += _certificates(hosts)
    if program is not None:
        lines += _needs(program)
    return lines


# ** python **
def _python() -> Finding:
    """pip refuses to install on a Python that is too old."""
    return Finding("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Iterator[Finding]:
    """The versions of what mpcc needs, against what its own metadata asks for."""
    least = _requirements()
    for name in EXPECTED:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", f"pip install '{name}{least.get(name, '')}'")
            continue
        want = least.get(name, "")
        if want and numbers_in(found) < numbers_in(want.lstrip(">=")):
            yield Finding(name, "fail", f"{found} is too old", f"pip install '{name}{want}'")
        else:
            yield Finding(name, "ok", found)


def _requirements() -> dict[str, str]:
    """Package -> ">=version", as installed."""
    try:
        wanted = metadata.requires("mpcc") or []
    except metadata.PackageNotFoundError:
        return {}
    pairs = [r.partition(">=") for r in wanted if ";" not in r]
    return {name.strip(): f"{sign}{version.strip()}" for name, sign, version in pairs if sign}


def numbers_in(version: str) -> tuple[int, ...]:
    parts: list[int] = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


# ** engines **
def _engines(wanted: str | None) -> Iterator[Finding]:
    """Every engine, and which of the secure ones are ready for a program of the protocol."""
    engines = [engine.configured(Options()) for engine in ENGINES]
    found = {engine.name: list(engine.examine(wanted)) for engine in engines}
    ready = [e.name for e in engines if e.secure and all(line.status != "fail" for line in found[e.name])]
    for line in (line for lines in found.values() for line in lines):
        yield replace(line, status="warn") if ready and line.status == "fail" else line
    if ready:
        yield Finding("secure engines", "ok", f"{' and '.join(ready)} {'is' if len(ready) == 1 else 'are'} ready")
        return
    secure = [e.name for e in engines if e.secure]
    yield Finding("secure engines", "fail", "none is ready", f"set up one of: {', '.join(secure)}")


def _parties(protocol: str | None) -> int:
    """How many parties the protocol of a program has; three where none says otherwise."""
    return PROTOCOLS[protocol].parties if protocol is not None and protocol in PROTOCOLS else 3


def _ports(count: int) -> Finding:
    """Whether as many ports can be opened on the loopback as there are parties."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", 0))
            sockets[-1].listen()
        return Finding("loopback", "ok", f"{count} ports could be opened on 127.0.0.1")
    except OSError as error:
        todo = "allow processes to listen on 127.0.0.1, or end what occupies its ports"
        return Finding("loopback", "fail", f"cannot open a port on 127.0.0.1: {error.strerror}", todo)
    finally:
        for s in sockets:
            s.close()


# ** certificates **
def _certificates(path: Path) -> Iterator[Finding]:
    """The certificates that a hosts.toml names, and the modes of the keys that are here."""
    try:
        table = read_toml(path, "the file of hosts")
    except MpccError as error:
        yield Finding("hosts", "fail", str(error), "write it on every host, see the manual")
        return
    entries = {r: e for r, e in table.items() if isinstance(e, dict) and isinstance(e.get("certificate"), str)}
    if not entries:
        yield Finding("hosts", "fail", f"{path} names no certificate", "give every role one: certificate = ...")
    for role, entry in entries.items():
        certificate = path.parent / entry["certificate"]
        yield _certificate(role, certificate, entry.get("fingerprint"))
        key = path.parent / str(entry["key"]) if "key" in entry else certificate.with_suffix(".key")
        if key.is_file() and key.stat().st_mode & 0o077:
            yield Finding(f"key of the {role}", "fail", f"{key} can be read by others", f"chmod 600 {key}")


def _certificate(role: str, path: Path, expected: object) -> Finding:
    """Whether a certificate is the one whose fingerprint hosts.toml holds, and how long it is valid."""
    from cryptography import x509

    from mpcc.runtime.parties.keys import fingerprint

    check, again = f"certificate of the {role}", f"mpcc keys --role {role}, and give the certificate to all roles"
    try:
        content = path.read_bytes()
        found = x509.load_pem_x509_certificate(content)
    except OSError as error:
        return Finding(check, "fail", f"cannot read {path}: {error.strerror}", again)
    except ValueError:
        return Finding(check, "fail", f"{path} is not a certificate", again)
    if not isinstance(expected, str):
        return Finding(check, "fail", "hosts.toml has no fingerprint of it", f'add fingerprint = "..." to [{role}]')
    if fingerprint(content) != expected.strip().lower():
        todo = f"ask the {role} for its certificate and compare fingerprints"
        return Finding(check, "fail", f"{path} is another one: its fingerprint is {fingerprint(content)}", todo)
    now, end = datetime.datetime.now(datetime.UTC), found.not_valid_after_utc
    if now < found.not_valid_before_utc:
        return Finding(check, "fail", f"not valid before {found.not_valid_before_utc:%Y-%m-%d}", "check the clock")
    if now > end:
        return Finding(check, "fail", f"expired on {end:%Y-%m-%d}", again)
    if end - now < SOON:
        return Finding(check, "warn", f"expires on {end:%Y-%m-%d}", again)
    return Finding(check, "ok", f"valid until {end:%Y-%m-%d}")


# ** what a program needs **
def ring_elements(program: Program) -> int:
    """Ring elements that a party holds at once, from above: all weights, and every value as if none were freed."""
    manifest = program.bundle.manifest
    values = sum(node.type.elements for node, _ in program.bundle.ring.walk() if node.op != "param")
    return manifest.private_elements + manifest.public_elements + values


def _needs(program: Program) -> Iterator[Finding]:
    """Memory and disk for all parties on this machine."""
    parties = _parties(program.protocol)
    memory = ring_elements(program) * ELEMENT_BYTES * parties
    yield _room("memory", memory, _free_memory(), "free some memory, or run the parties on hosts of their own")
    manifest = program.bundle.manifest
    weights = manifest.private_elements + manifest.public_elements
    disk = weights * (ELEMENT_BYTES + 8) * parties  # shares, and the streams that they are made from
    folder = tempfile.gettempdir()
    yield _room(f"disk in {folder}", disk, shutil.disk_usage(folder).free, "make room there, or set TMPDIR")


def _room(check: str, need: int, free: int | None, todo: str) -> Finding:
    if free is None:
        return Finding(check, "warn", f"needs about {size(need)}; how much is free is unknown", "see for yourself")
    found = f"needs about {size(need)} for all parties, {size(free)} are free"
    if need > free:
        return Finding(check, "fail", found, todo)
    return Finding(check, "warn", found, todo) if need > free // 2 else Finding(check, "ok", found)


def _free_memory() -> int | None:
    """Bytes available without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
