"""Faults that one party finds by itself, before it has told anybody anything."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from mpcc.runtime.parties.keys import fingerprint, make_identity, save_identity
from tests.faults.fault import ENGINE, USER, Causes, Fault, Stage, refused
from tests.faults.place import Place, program

Change = Callable[[Path], object]
STAND_IN = "stand-in"


def alone(role: str, change: Change, *options: str, given: str = "in.json") -> Causes:
    """Change a role's folder, and start only that role."""

    def cause(place: Place):
        change(place.at(role))
        asked = ("--input", given) if role == "client" else ()
        place.party(role, *place.stored, *options, *asked, wait=3)
        return place.ended()

    return cause


def row(name: str, stage: Stage, role: str, change: Change, says: str, code: int = USER, **more) -> Fault:
    return Fault(name, stage, STAND_IN, alone(role, change, **more), refused(role, says, code), damages=True)


# ** what is done to files **
def removed(name: str) -> Change:
    return lambda at: (at / name).unlink()


def written(name: str, content: str | bytes) -> Change:
    raw = content.encode() if isinstance(content, str) else content
    return lambda at: (at / name).write_bytes(raw)


def edited(name: str, edit: Callable[[bytes], bytes]) -> Change:
    def change(at: Path) -> None:
        raw = (at / name).read_bytes()
        assert edit(raw) != raw
        (at / name).write_bytes(edit(raw))

    return change


def half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 0x81]) + raw[middle + 1 :]


def a_pipe(name: str) -> Change:
    def change(at: Path) -> None:
        (at / name).unlink()
        os.mkfifo(at / name)

    return change


def of_another_program(name: str, protocol: str = "ring") -> Change:
    """A part of the bundle of a program of another seed."""

    def change(at: Path) -> None:
        other = at / "other"
        other.mkdir()
        program(protocol, 1).save(other / "prog.mpc")
        shutil.rmtree(at / name) if (at / name).is_dir() else (at / name).unlink()
        (other / name).rename(at / name)

    return change


BUNDLE = "prog.mpcc"
FILES = [
    row("the program is missing", Stage.FILES, "helper", removed("prog.mpc"), "cannot read the program"),
    row("the program has another line", Stage.FILES, "helper", edited("prog.mpc", lambda r: r + b"\n"), "was changed"),
    row("the manifest is missing", Stage.FILES, "helper", removed(f"{BUNDLE}/manifest.json"), "has no manifest"),
    row("the manifest is cut", Stage.FILES, "client", edited(f"{BUNDLE}/manifest.json", half), "it is not JSON"),
    row(
        "the manifest is of another version",
        Stage.FILES,
        "provider",
        edited(f"{BUNDLE}/manifest.json", lambda r: r.replace(b'"version": 1', b'"version": 9')),
        "format version '9', this mpcc reads 1",
    ),
    row("a bit of ring.ir has changed", Stage.FILES, "provider", edited(f"{BUNDLE}/ring.ir", flipped), "corrupt"),
    row("a bit of mpc.ir has changed", Stage.FILES, "helper", edited(f"{BUNDLE}/mpc.ir", flipped), "corrupt"),
    row("a pipe stands for graph.ir", Stage.FILES, "client", a_pipe(f"{BUNDLE}/graph.ir"), "it is not a file"),
    row(
        "the client's weights are cut",
        Stage.FILES,
        "client",
        edited(f"{BUNDLE}/client/weights.safetensors", half),
        "corrupt",
    ),
    row(
        "the provider's weights are cut",
        Stage.FILES,
        "provider",
        edited(f"{BUNDLE}/provider/weights.safetensors", half),
        "corrupt",
    ),
    row(
        "the provider's part is missing",
        Stage.FILES,
        "provider",
        lambda at: shutil.rmtree(at / BUNDLE / "provider"),
        "has no provider/|does not hold the provider's",
    ),
    row(
        "the client's part is another program's",
        Stage.FILES,
        "client",
        of_another_program(f"{BUNDLE}/client"),
        "corrupt|another program|digest",
    ),
    row(
        "the source is another program's",
        Stage.FILES,
        "provider",
        of_another_program("prog.mpc", "semi2k"),
        "source was changed",
    ),
]


# ** keys **
def identity(role: str, **choices: object) -> Change:
    """A new certificate of a role in the folder, with its key where it is the role's own; hosts.toml fits it."""

    def change(at: Path) -> None:
        keys, player = at / "keys", ("client", "provider", "helper").index(role)
        made = make_identity(player, **choices)
        old = fingerprint((keys / f"{role}.pem").read_bytes())
        (keys / f"{role}.pem").write_bytes(made.certificate)
        if (keys / f"{role}.key").exists():
            (keys / f"{role}.key").unlink()
            (keys / f"{role}.pem").unlink()
            save_identity(keys, role, made)
        hosts = (keys / "hosts.toml").read_text()
        (keys / "hosts.toml").write_text(hosts.replace(old, fingerprint(made.certificate)))

    return change


def hosts(old: str, new: str) -> Change:
    return edited("keys/hosts.toml", lambda raw: raw.replace(old.encode(), new.encode(), 1))


def same_address(at: Path) -> None:
    lines = (at / "keys/hosts.toml").read_text().splitlines()
    ports = [line for line in lines if line.startswith("port")]
    (at / "keys/hosts.toml").write_text("\n".join(lines).replace(ports[1], ports[0]))


def unknown_host(at: Path) -> None:
    path = at / "keys/hosts.toml"
    path.write_text(path.read_text().replace('host = "127.0.0.1"', 'host = "no-such-host.invalid"', 1))


KEYS = [
    row("hosts.toml is missing", Stage.KEYS, "helper", removed("keys/hosts.toml"), "cannot read the file of hosts"),
    row("hosts.toml is cut", Stage.KEYS, "client", edited("keys/hosts.toml", half), "is not TOML|has no"),
    row("hosts.toml lacks a role", Stage.KEYS, "client", hosts("[helper]", "[other]"), r"has no \[helper\]"),
    row("a port is no port", Stage.KEYS, "provider", hosts("port = ", "port = 9"), "host or port that cannot be"),
    row("two roles have one address", Stage.KEYS, "provider", same_address, "two roles have the same host and port"),
    row("the key is missing", Stage.KEYS, "client", removed("keys/client.key"), "cannot read the key", ENGINE),
    row(
        "the key is open to others",
        Stage.KEYS,
        "client",
        lambda at: (at / "keys/client.key").chmod(0o644),
        "can be read by others",
        ENGINE,
    ),
    row(
        "the key is another's",
        Stage.KEYS,
        "provider",
        lambda at: (at / "keys/provider.key").write_bytes(make_identity(1).key),
        "does not belong to its certificate",
        ENGINE,
    ),
    row(
        "the key is cut", Stage.KEYS, "helper", edited("keys/helper.key", half), "key of the helper is corrupt", ENGINE
    ),
    row("a certificate is cut", Stage.KEYS, "client", edited("keys/helper.pem", half), "helper is corrupt", ENGINE),
    row(
        "a certificate is another than agreed",
        Stage.KEYS,
        "client",
        lambda at: (at / "keys/helper.pem").write_bytes(make_identity(2).certificate),
        "is not the one expected",
        ENGINE,
    ),
    row(
        "a certificate is another role's",
        Stage.KEYS,
        "client",
        lambda at: shutil.copy(at / "keys/provider.pem", at / "keys/helper.pem"),
        "of another role|not the one expected",
        ENGINE,
    ),
    row(
        "a peer's certificate has expired",
        Stage.KEYS,
        "client",
        identity("helper", validity=datetime.timedelta(hours=-1)),
        "certificate of the helper expired on",
        ENGINE,
    ),
    row(
        "the own certificate has expired",
        Stage.KEYS,
        "helper",
        identity("helper", validity=datetime.timedelta(hours=-1)),
        "certificate of the helper expired on",
        ENGINE,
    ),
    row(
        "a host has no address",
        Stage.KEYS,
        "helper",
        unknown_host,
        "client did not connect|no-such-host|cannot be reached|did not",
        ENGINE,
    ),
]


# ** inputs **
def asks(content: object) -> Change:
    return written("in.json", content if isinstance(content, str) else json.dumps(content))


def wrong_input(name: str, content: object, says: str) -> Fault:
    return row(name, Stage.INPUTS, "client", asks(content), says)


INPUTS = [
    row("the input is missing", Stage.INPUTS, "client", removed("in.json"), "cannot read the inputs"),
    wrong_input("the input is not JSON", "{", "is not JSON"),
    wrong_input("the input is no object", [1], "neither an object nor a list"),
    wrong_input("there are no inputs", [], "neither an object nor a list"),
    wrong_input("the input has another name", {"tokens": [[1] * 8]}, "tokens|input_ids"),
    wrong_input("the input is too long", {"input_ids": [[1] * 9]}, "9"),
    wrong_input("a token that does not exist", {"input_ids": [[1] * 7 + [60]]}, "ids are 0 to 59"),
    wrong_input("a token below zero", {"input_ids": [[-1] * 8]}, "ids are 0 to 59"),
    wrong_input("a token that is no whole number", {"input_ids": [[0.5] * 8]}, "whole|integer"),
    wrong_input("a token that is not a number", '{"input_ids": [[NaN, 1, 1, 1, 1, 1, 1, 1]]}', "whole|number|JSON"),
    wrong_input("rows of other lengths", {"input_ids": [[1], [1, 2]]}, "length|rows|shape|array"),
    wrong_input("a list nested a hundred thousand times", "[" * 100_000, "is not JSON"),
]


# ** stored shares **
SHARES = "state/{0}/Persistence/Transactions-P{1}.data"
HELPERS = SHARES.format("helper", 2)


def shares(name: str, change: Change, says: str, role: str = "helper") -> Fault:
    return row(name, Stage.STATE, role, change, says, ENGINE)


def state_field(role: str, **fields: object) -> Change:
    def change(at: Path) -> None:
        path = at / "state" / role / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


STATE = [
    shares("there are no stored shares", lambda at: shutil.rmtree(at / "state"), "has no stored shares"),
    shares("the state is cut", edited("state/helper/state.json", half), "the state is corrupt"),
    shares("the state is of another version", state_field("helper", version=0), "another version of mpcc"),
    shares("the shares are cut", edited(HELPERS, lambda r: r[:-8]), "file of shares is truncated"),
    shares("the shares are longer", edited(HELPERS, lambda r: r + bytes(16)), "file of shares is too long"),
    shares("a byte of the shares has changed", edited(HELPERS, flipped), "file of shares is corrupt"),
    shares("the shares are missing", removed(HELPERS), "file of shares is missing"),
    shares(
        "the shares are another role's",
        lambda at: shutil.copytree(at.parent / "client/state/client", at / "state/helper", dirs_exist_ok=True),
        "the state is the client's",
    ),
    shares(
        "the byte code has changed",
        lambda at: next((at / "state/provider/Programs/Bytecode").iterdir()).write_text("another"),
        "byte code is not this program's",
        "provider",
    ),
    shares("the state is of another protocol", state_field("client", protocol="semi2k"), "of the protocol", "client"),
    shares("the state is of another program", state_field("client", source="0"), "belongs to another", "client"),
    shares("the state is of another MP-SPDZ", state_field("client", mp_spdz="0.4.9"), "made with MP-SPDZ", "client"),
]


def port_taken(place: Place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.ports["client"]))
        taken.listen()
        place.party("client", *place.stored, "--input", "in.json", wait=3)
        return place.ended()


def folder_is_a_file(at: Path) -> None:
    shutil.rmtree(at / "state")
    (at / "state").write_text("")


MORE = [
    Fault(
        "the own port is in use",
        Stage.MEETING,
        STAND_IN,
        port_taken,
        refused("client", "the port cannot be used: Address already in use", ENGINE),
    ),
    row("a file stands for the folder of shares", Stage.STATE, "helper", folder_is_a_file, "state", ENGINE),
]
BEFORE = [*FILES, *KEYS, *INPUTS, *STATE, *MORE]
