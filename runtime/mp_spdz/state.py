"""Stored shares: what a party keeps from provisioning, so that inferences need no weights any more.

    STATE/<role>/state.json      what belongs together: digests of source, layout, byte code and own shares
    STATE/<role>/Programs/       the byte code of both modes
    STATE/<role>/Persistence/    the party's shares, as MP-SPDZ wrote them

Folders are the owner's alone (0700), shares and state.json too (0600). A digest of the weights is in the provider's
state.json only. A file of shares starts with a header (its length in 8 bytes, the protocol's name, the bits of the
ring), then come the shares, of equal size.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mpcc.backends.mp_spdz.dialects import SEAL as SEAL
from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Int64
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.home import setup_of
from mpcc.runtime.parties.folders import FULL_BYTES
from mpcc.runtime.parties.keys import write_private

VERSION = 1
MANIFEST, PROGRAMS, SHARES = "state.json", "Programs", "Persistence"
_AGAIN = "provision again, all parties together"


@dataclass(frozen=True)
class State:
    """A party's state.json; sizes in bytes, `weights` is a digest that only the provider has."""

    version: int
    role: str
    protocol: str
    source: str
    layout: str
    mp_spdz: str
    values: int
    shares_size: int
    shares_digest: str
    programs: dict[str, str]
    weights: str = ""


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def holds_shares(role: str) -> bool:
    """A dealer deals and holds nothing."""
    return role != "dealer"


def shares_file(folder: Path, player: int) -> Path:
    return folder / SHARES / f"Transactions-P{player}.data"


# ** making one **
def staging(state: Path, role: str) -> Path:
    """A new folder in which a party's state is put together; leftovers of interrupted provisionings are removed."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in state.glob(f".{role}.*.tmp"):
        shutil.rmtree(old, ignore_errors=True)
    folder = state / f".{role}.{secrets.token_hex(4)}.tmp"
    folder.mkdir(mode=0o700)
    (folder / SHARES).mkdir(mode=0o700)
    return folder


def copy_programs(programs: Path, folder: Path) -> None:
    """Put byte code into the folder of a state. EngineError if the disk has no room for it, or is broken."""
    try:
        shutil.copytree(programs, folder / PROGRAMS)
    except OSError as error:
        raise EngineError("the byte code cannot be stored", where=str(folder.parent), todo=_room(folder)) from error


def seal_state(folder: Path, role: str, player: int, program: Emitted, mp_spdz: str, weights: Int64 | None) -> None:
    """Write state.json for what stands in the folder, and close the files to others.

    EngineError if the shares that were stored are not as many as the program has weights.
    """
    values = program.private_elements + 1
    path = shares_file(folder, player)
    size, shares = 0, ""
    if holds_shares(role):
        size, shares = _stored_size(path, values, program.protocol), _digest_file(path)
        path.chmod(0o600)
    programs = {str(p.relative_to(folder)): _digest_file(p) for p in sorted(_files(folder / PROGRAMS))}
    own = digest(weights.astype("<i8").tobytes()) if weights is not None else ""
    manifest = State(
        VERSION,
        role,
        program.protocol,
        digest(program.source.encode()),
        program.layout,
        mp_spdz,
        values,
        size,
        shares,
        programs,
        own,
    )
    write_private(folder / MANIFEST, (json.dumps(asdict(manifest), indent=1) + "\n").encode())


def install_state(folder: Path, state: Path, role: str) -> None:
    """Put a finished folder in the place of the old one."""
    target = state / role
    old = folder.with_name(folder.name + ".old")
    if target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _stored_size(path: Path, values: int, protocol: str) -> int:
    """The size of a file of shares that holds exactly `values` of them."""
    size = path.stat().st_size if path.is_file() else 0
    each, rest = divmod(size - (_header_size(path) if size >= 8 else size), values)
    if rest or each < 8 or each != (setup_of(protocol).share_bytes or each):
        raise EngineError(f"the party did not store its {values} shares", where=str(path), todo=_room(path))
    return size


def check_room(state: Path, failure: EngineError) -> None:
    """EngineError if a party failed because the disk of its shares is full."""
    if shutil.disk_usage(state).free < FULL_BYTES:
        raise EngineError("no room is left for the shares", where=str(state), todo=_room(state)) from failure


def _room(path: Path) -> str:
    parent = next((p for p in path.parents if p.exists()), None)
    free = shutil.disk_usage(parent).free if parent is not None else 0
    return f"see whether there is room on the disk ({free / 1e6:.0f} MB are free), and provision again"


def _header_size(path: Path) -> int:
    """The length in the first eight bytes, and these; the header of ring shares is their protocol's name and bits."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ** using one **
def exists(state: Path, role: str) -> bool:
    return (state / role / MANIFEST).is_file()


def read_state(state: Path, role: str) -> State:
    """A party's state.json. EngineError if there is none, or none that this version reads."""
    path = state / role / MANIFEST
    try:
        table = json.loads(path.read_text("utf-8"))
        if table["version"] != VERSION:
            raise EngineError("the state is of another version of mpcc", where=str(path), todo=_AGAIN)
        return State(**table)
    except FileNotFoundError:
        raise EngineError(f"the {role} has no stored shares", where=str(state), todo="run: mpcc provision") from None
    except OSError as error:
        raise EngineError(f"cannot read the state: {error.strerror}", where=str(path)) from None
    except (ValueError, TypeError, KeyError):
        raise EngineError("the state is corrupt", where=str(path), todo=_AGAIN) from None


def check_state(state: Path, role: str, program: Emitted, mp_spdz: str) -> State:
    """The state of a party, if it belongs to this program and is whole. EngineError otherwise."""
    found, folder = read_state(state, role), state / role
    if found.role != role:
        raise EngineError(f"the state is the {found.role}'s, not the {role}'s", where=str(folder), todo=_AGAIN)
    if found.protocol != program.protocol:
        raise EngineError(
            f"the state is of the protocol {found.protocol}, the program of {program.protocol}",
            where=str(folder),
            todo=_AGAIN,
        )
    same = (digest(program.source.encode()), program.layout, program.private_elements + 1)
    if (found.source, found.layout, found.values) != same:
        raise EngineError("the state belongs to another program: its digest differs", where=str(folder), todo=_AGAIN)
    _check_shares(found, folder, role, setup_of(program.protocol).roles.index(role))
    check_programs(found, folder, mp_spdz)
    return found


def _check_shares(found: State, folder: Path, role: str, player: int) -> None:
    if not holds_shares(role):
        return
    path = shares_file(folder, player)
    size = path.stat().st_size if path.is_file() else 0
    if size != found.shares_size:
        word = "missing" if not path.is_file() else "truncated" if size < found.shares_size else "too long"
        raise EngineError(
            f"the file of shares is {word}: {size} bytes, {found.shares_size} for {found.values} shares",
            where=str(path),
            todo=_AGAIN,
        )
    if _digest_file(path) != found.shares_digest:
        raise EngineError("the file of shares is corrupt: its digest differs", where=str(path), todo=_AGAIN)


def check_programs(found: State, folder: Path, mp_spdz: str) -> None:
    """EngineError if the byte code is not what was compiled, or was compiled for another MP-SPDZ."""
    if found.mp_spdz != mp_spdz:
        raise EngineError(
            f"the state was made with MP-SPDZ {found.mp_spdz}, here is {mp_spdz}", where=str(folder), todo=_AGAIN
        )
    present = {str(p.relative_to(folder)): _digest_file(p) for p in _files(folder / PROGRAMS)}
    if present != found.programs:
        raise EngineError(
            "the byte code is not this program's: its digest differs", where=str(folder / PROGRAMS), todo=_AGAIN
        )


def has_byte_code(state: Path, role: str, program: Emitted, mp_spdz: str) -> bool:
    """Whether the byte code of this very program stands there, so that only the weights have to be shared."""
    if not exists(state, role):
        return False
    try:
        found = read_state(state, role)
        check_programs(found, state / role, mp_spdz)
    except EngineError:
        return False
    return (found.source, found.protocol) == (digest(program.source.encode()), program.protocol)


def check_weights(state: Path, weights: Int64) -> None:
    """EngineError if the stored shares are of other weights than the provider's present ones."""
    found = read_state(state, "provider")
    if found.weights and found.weights != digest(weights.astype("<i8").tobytes()):
        raise EngineError(
            "the stored shares are of other weights than the program's",
            where=str(state),
            todo="provision again: mpcc provision",
        )
