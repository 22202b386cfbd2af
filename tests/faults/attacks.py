"""What an enemy sends, signs or shows: each ends at the victim with one line, and nothing has been shared.

A victim that refuses what it received starts alone and ends before it opens a port or dials anybody.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from forged import signed_by

import mpcc
from mpcc.runtime.parties.keys import Identity, fingerprint, make_identity
from tests.bundle import test_hidden_values as hidden
from tests.bundle import tiny_programs as tiny
from tests.faults.commands import Ended
from tests.faults.fault import ENGINE, USER, Causes, End, Fault, Stage, refused
from tests.faults.network import with_tls
from tests.faults.place import HERE, SPU, STAND_IN, Place
from tests.faults.sessions import goes_on
from tests.frontend import test_hostile_files as hostile

MP_SPDZ = ("ring", "dealer-ring", "semi2k")
Edit = Callable[[str], str]


# ** the provider edits the client's part **
def with_digest(part: Path, name: str, edit: Edit) -> None:
    """Edit a file of a bundle, and its digest as the bundle's author would."""
    path = part / "prog.mpc" if name == "source" else part / "prog.mpcc" / name
    text = edit(path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    manifest = part / "prog.mpcc" / "manifest.json"
    table = json.loads(manifest.read_text())
    table["digests"][name] = hashlib.sha256(text.encode()).hexdigest()
    manifest.write_text(json.dumps(table))


def sent(name: str, edit: Edit, role: str = "client") -> Causes:
    """A role got a file of the bundle that was edited."""

    def cause(place: Place):
        with_digest(place.at(role), name, edit)
        marker = place.at(role) / "PWNED"
        place.party(role, *place.stored, *(("--input", "in.json") if role == "client" else ()), wait=3)
        seen = place.ended()
        assert not marker.exists()
        return seen

    return cause


def appended(line: str) -> Edit:
    return lambda text: text + line + "\n"


def put(old: str, new: str) -> Edit:
    """Every match of a regular expression replaced."""
    return lambda text: re.sub(old, new, text)


RUNS = "import pathlib; pathlib.Path('PWNED').touch()"
PRINTS = "print_ln('%s', sint.get_input_from(0).reveal())"
REVEALED = '\nr90 = reveal(r2) {name="more", to="client"} : share[1,4] q13 <=1.0 @ "mean" "" "input"\nreturn "output"'
LOOP = (
    "\nr90 = repeat(r2) {carried=1, count=999999999} : share[] q0 <=0.0 {\n"
    '  b0 = arg() {index=0, kind="carried"} : share[1,4] q13 <=1.0\n  return "c0"=b0\n}\nreturn "output"'
)
RING_EDITS = {
    "opens the answer to the provider": (put('to="client"', 'to="provider"'), "opened to 'provider'"),
    "opens the answer to everybody": (put('to="client"', 'to="everybody"'), "opened to 'everybody'"),
    "opens a value that nobody declared": (put('\nreturn "output"', REVEALED), "ring.ir"),
    "takes the client's input from the provider": (put('role="client"', 'role="provider"'), "shared by 'provider'"),
    "makes the client's input public": (put('role="client"', 'role="public"'), "public|everybody"),
    "holds a loop of a thousand million rounds": (put('\nreturn "output"', LOOP), "ring.ir"),
    "holds an operation that there is not": (put("= reveal", "= system"), "unknown operation"),
    "is nested a hundred thousand times": (lambda text: "ring 64\nr0 = x() {a=" + "(" * 100_000, "ring.ir"),
}
SOURCE_EDITS = {"runs code": RUNS, "prints the client's input": PRINTS, "has another comment": "# more"}
GRAPH_EDITS = {
    "makes the client's input public": (put('role="client"', 'role="public"'), "who may read|everybody|differ"),
    "makes a private weight public": (put("visibility=provider", "visibility=public"), "mpc.ir|weights|differ"),
    "opens a value inside": (put("relu\\(%linear\\)", "reveal(%linear)"), "reveal|mpc.ir"),
    "hands text to the engine": (
        put("relu\\(%linear\\)", 'custom_call(%linear) {target="spu.dbg_print"}'),
        "mpc.ir|custom",
    ),
}


def edited(name: str, engine: str, file: str, edit: Edit, says: str, role: str = "client") -> Fault:
    return Fault(name, Stage.ATTACK, engine, sent(file, edit, role), refused(role, says, USER), damages=True)


EDITED = [
    *(
        edited(f"the {role} got a source that {what}", engine, "source", appended(line), "not the one that its", role)
        for engine in MP_SPDZ
        for what, line in SOURCE_EDITS.items()
        for role in (("client", "provider") if engine == "ring" else ("client",))
    ),
    *(
        edited(f"the client got a ring.ir that {what}", engine, "ring.ir", edit, says)
        for engine in (*MP_SPDZ, SPU)
        for what, (edit, says) in RING_EDITS.items()
    ),
    *(
        edited(f"the client got an mpc.ir that {what}", engine, "mpc.ir", edit, says)
        for engine in (SPU, "ring")
        for what, (edit, says) in GRAPH_EDITS.items()
    ),
]


# ** certificates **
def forger(signed: bool) -> Callable[[Place], Identity]:
    """A certificate in the name of the last role: signed with the provider's key, or its own."""

    def forge(place: Place) -> Identity:
        player = len(place.roles) - 1
        signer = place.identities[place.roles[0] if player == 1 else "provider"]
        return signed_by(signer, player) if signed else make_identity(player)

    return forge


def pretends(forge: Callable[[Place], Identity]) -> Causes:
    """The last role shows a certificate that the others did not agree on; its own files are as it likes."""

    def cause(place: Place):
        role = place.roles[-1]
        made, keys = forge(place), place.at(role) / "keys"
        old = fingerprint((keys / f"{role}.pem").read_bytes())
        for name, content in ((f"{role}.pem", made.certificate), (f"{role}.key", made.key)):
            (keys / name).unlink()
            (keys / name).write_bytes(content)
            (keys / name).chmod(0o600)
        hosts = keys / "hosts.toml"
        hosts.write_text(hosts.read_text().replace(old, fingerprint(made.certificate)))
        for each in place.roles:
            place.party(each, *place.stored, *(("--input", "in.json") if each == "client" else ()), wait=8)
        seen = place.ended()
        assert not seen["client"].out
        return seen

    return cause


def turned_away(engine: str, roles: tuple[str, ...], signed: bool) -> Fault:
    name = "signed with another party's key" if signed else "that nobody knows"
    ends = dict.fromkeys(roles, End(ENGINE, "did not connect|turned away|closed its connection|could sign"))
    return Fault(
        f"the {roles[-1]} shows a certificate {name}",
        Stage.ATTACK,
        engine,
        pretends(forger(signed)),
        ends,
        damages=True,
    )


ROLES = {
    "ring": ("client", "provider", "helper"),
    "dealer-ring": ("client", "provider", "dealer"),
    "semi2k": ("client", "provider"),
    SPU: ("client", "provider", "helper"),
}
CERTIFICATES = [turned_away(engine, roles, signed) for engine, roles in ROLES.items() for signed in (True, False)]


def forged_stream(place: Place):
    """In a session, a stream of the helper's whose certificate the provider's key signed."""
    place.session()
    made = signed_by(place.identities["provider"], 2)
    words = b"mpcc-link 1\n\x04\x00\x22\x02\x00" + bytes(32)
    assert with_tls(place.ports["client"], made, place.folder / "stranger", words) == b""
    shutil.rmtree(place.folder / "stranger")
    return goes_on(place)


# ** files of a model **
def compiles(write: Callable[[Path], tuple[str, ...]]) -> Causes:
    """`mpcc compile` of what an enemy, or a mistaken user, gives; nothing is written and no code of it runs."""

    def cause(place: Place):
        at = place.at(HERE) / "model"
        at.mkdir()
        try:
            place.command(HERE, "compile", *write(at), "-o", str(at / "out.mpc"))
            seen = place.ended()
            assert not (at / "PWNED").exists() and not (at / "out.mpc").exists() and not (at / "out.mpcc").exists()
            return seen
        finally:
            shutil.rmtree(at)

    return cause


def hostile_pt2(change: Callable[[dict, str], None]) -> Callable[[Path], tuple[str, ...]]:
    def write(at: Path) -> tuple[str, ...]:
        honest = hostile.exported.__wrapped__()
        code = hostile.CODE.format(marker=str(at / "PWNED"))
        (at / "evil.pt2").write_bytes(hostile.rewritten(honest, lambda table: change(table, code)))
        return (str(at / "evil.pt2"),)

    return write


def wrong_base(*options: str, rules: str = "") -> Callable[[Path], tuple[str, ...]]:
    """The fine-tuned model itself is given as the base."""

    def write(at: Path) -> tuple[str, ...]:
        mpcc.save(tiny.classifier(), at / "tuned.pt2", sequence_length=tiny.LENGTH)
        if rules:
            (at / "rules.toml").write_text(rules)
            return (str(at / "tuned.pt2"), "--partition", str(at / "rules.toml"))
        return (str(at / "tuned.pt2"), "--base", str(at / "tuned.pt2"), *options)

    return write


def quantised(kind: str) -> Causes:
    """An int8 weight that is no parameter is private all the same: it stands in no file that others get."""

    def cause(place: Place):
        at = place.at(HERE) / "model"
        at.mkdir()
        model = hidden.Quantised(kind).eval()
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
        files = hidden.shared_files(hidden.compiled(model, x=x), at)
        hidden.assert_not_in(files, model.weight)
        hidden.assert_not_in(files, model.weight.float() * model.scale)
        shutil.rmtree(at)
        return {HERE: Ended(0, "", "")}

    return cause


def model(name: str, cause: Causes, says: str) -> Fault:
    return Fault(name, Stage.ATTACK, STAND_IN, cause, refused(HERE, says, USER), damages=True)


PT2 = "\\.pt2|exported program|evil"
MODELS = [
    model("a .pt2 whose symbolic size is code", compiles(hostile_pt2(hostile.expression)), PT2),
    model("a .pt2 whose guard is code", compiles(hostile_pt2(hostile.guard)), PT2),
    model("a .pt2 that calls os.system", compiles(hostile_pt2(hostile.target("torch.os.system"))), PT2),
    model("a .pt2 with code in a parameter's name", compiles(hostile_pt2(hostile.parameter_name)), PT2),
    model("the base is the fine-tuned model itself", compiles(wrong_base()), "all-public|nothing|private|head"),
    *(
        Fault(
            f"a quantised weight as {kind}", Stage.ATTACK, STAND_IN, quantised(kind), refused(HERE, "", 0), damages=True
        )
        for kind in ("attribute", "buffer", "hidden buffer")
    ),
]
ATTACKS = [
    *EDITED,
    *CERTIFICATES,
    Fault(
        "a stream with a certificate that the provider's key signed",
        Stage.ATTACK,
        "ring",
        forged_stream,
        dict.fromkeys(ROLES["ring"], End(0)),
    ),
    *MODELS,
]
