"""What `mpcc audit` says, against the programs it speaks of."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace

import pytest

from mpcc.audit import EACH, ONCE, OPEN, SHARES, audit, audit_json, check_accepted
from mpcc.cli import app as cli
from mpcc.compiler.errors import MpccError
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.protocols import described
from mpcc.compiler.ring.text import parse_ring
from mpcc.passes.ring.choose_truncations import failure_at_bounds, local_elements
from mpcc.program import Program
from mpcc.report.audit import short_lines
from mpcc.split import split_program
from mpcc.told import MOST_STATISTICS, Told, entropy, told
from tests.bundle import tiny_programs as tiny

ROLES = ("client", "provider", "helper")


@pytest.fixture(scope="module")
def prefix():
    return audit(tiny.prefix_program())


@pytest.fixture
def saved(tmp_path):
    tiny.small_program().save(tmp_path / "prog.mpc")
    return tmp_path / "prog.mpc"


def row(rows: tuple[Told, ...], what: str) -> Told:
    return next(r for r in rows if r.what == what)


# ** who gives, learns and opens what **
def test_what_is_given_is_what_the_parties_read(prefix):
    program = tiny.prefix_program()
    client, provider = prefix.parts["client"], prefix.parts["provider"]
    assert client.bytes_each == program.client_stream(tiny.sample()).nbytes and client.bytes_once == 0
    assert provider.bytes_once == program.provider_stream().nbytes and provider.bytes_each == 0
    assert {g.name for g in client.gives} == set(program.bundle.manifest.client_order)
    assert {g.name: g.elements for g in provider.gives} == {n: a.size for n, a in program.provider_weights().items()}
    assert {(g.how, g.when) for g in (*client.gives, *provider.gives)} == {(SHARES, EACH), (SHARES, ONCE)}
    assert prefix.parts["helper"].gives == ()


def test_what_is_opened_and_learned(prefix):
    assert [(o.name, o.shape, o.to, o.clear) for o in prefix.opened] == [("logits", (1, 2), "client", False)]
    assert prefix.parts["client"].learns == ("the output logits",)
    assert any("how many requests" in line for line in prefix.parts["provider"].learns)
    assert prefix.parts["provider"].learns[-1] == prefix.parts["helper"].learns[-1] == "nothing of an input"


def test_an_input_that_is_open_to_all_is_named():
    bundle = tiny.small_program().bundle
    manifest = bundle.manifest
    public = replace(manifest, inputs=tuple(replace(i, role="public") for i in manifest.inputs))
    ring = bundle.ring.with_nodes(
        [
            replace(
                n,
                attrs=tuple((k, "public" if k == "role" else v) for k, v in n.attrs),
                type=replace(n.type, public=True),
            )
            if n.op == "input"
            else n
            for n in bundle.ring
        ]
    )
    from mpcc.backends.mp_spdz.emitter import emit

    text = emit(ring, protocol=manifest.protocol, truncation=manifest.truncation).text
    found = audit(Program(replace(bundle, manifest=public, ring=ring, source=text)))
    assert {g.how for g in found.parts["client"].gives} == {OPEN}
    assert "the input input_ids, which is open to all" in found.parts["helper"].learns
    assert "in clear to every party: " + found.parts["client"].gives[0].name in "\n".join(short_lines(found, "client"))


def test_json_holds_the_contract(prefix):
    table = json.loads(json.dumps(audit_json(prefix)))
    manifest = tiny.prefix_program().bundle.manifest
    assert set(table) == {
        "program",
        "digest",
        "digest_parts",
        "roles",
        "everybody_learns",
        "opened",
        "weights",
        "numbers",
        "told",
        "failure",
        "asking",
    }
    assert tuple(table["roles"]) == ROLES and table["program"]["protocol"] == "ring"
    assert table["weights"]["evidence"] == [asdict(e) for e in manifest.evidence]
    assert any(e["visibility"] == "public" and "byte-equal" in e["reason"] for e in table["weights"]["evidence"])
    assert table["numbers"] == [asdict(n) for n in manifest.numbers] and table["numbers"]
    assert table["told"]["at_most_bits"] == sum(k["at_most"] for k in table["told"]["kinds"])
    assert tuple(audit_json(prefix, "provider")["roles"]) == ("provider",)


def test_the_protocol_of_another_engine(prefix):
    found = audit(tiny.prefix_program(), described("cheetah"))
    assert tuple(found.parts) == ("client", "provider") and found.digest == prefix.digest
    assert "protocol cheetah: semi-honest, two parties" in short_lines(found, "client")[0]


# ** what the program tells of the private weights **
def test_every_result_is_counted(prefix):
    """No operation of the graph inside MPC has a calibrated bound that is not counted."""
    bundle = tiny.prefix_program().bundle
    computing = [n for n in bundle.mpc if n.op in REGISTRY and not REGISTRY[n.op].moves_data]
    shared = [n for n in bundle.mpc if n.op == "input"]
    assert row(prefix.told, "bounds of results").count >= len(computing) + len(shared)
    assert max(len(op.statistics) for op in REGISTRY.values()) <= MOST_STATISTICS
    measured = [n for n in computing if REGISTRY[n.op].statistics]
    assert measured and row(prefix.told, "domains of approximations").count >= MOST_STATISTICS * len(measured)


def with_bound(program: Program, bound: float) -> tuple[Told, ...]:
    """What is told when one result of a product has another bound."""
    ring = program.bundle.ring
    changed = next(n for n in ring if n.result_of and n.origin.graph_op == "linear")
    nodes = [n.with_type(replace(n.type, bound=bound)) if n.name == changed.name else n for n in ring]
    return told(program.bundle.manifest, ring.with_nodes(nodes))


def test_bits_follow_the_bounds(prefix):
    program = tiny.prefix_program()
    plain = row(prefix.told, "bounds of results")
    other = row(with_bound(program, 2.0**-7), "bounds of results")
    assert other.coded > plain.coded and other.at_most == plain.at_most
    fine = row(with_bound(program, 3.14159), "bounds of results")  # not a power of two: all of its digits are told
    assert fine.at_most > plain.at_most + 50 and fine.count == plain.count


def test_what_is_not_there_is_not_told():
    manifest, ring = tiny.prefix_program().bundle.manifest, tiny.prefix_program().bundle.ring
    whats = {r.what for r in told(manifest, ring)}
    assert {
        "bounds of results",
        "bound of the weights",
        "weights that changed",
    } <= whats and "ranks of updates" not in whats
    bare = replace(manifest, failure_probability=0.0, alternatives=(), evidence=())
    left = whats - {r.what for r in told(bare, ring)}
    assert left == {"failure probability", "other forms considered", "weights that changed"} & whats
    assert "weights that changed" in left and "local truncations" in whats


def test_entropy():
    assert entropy(["a", "a", "b", "b"]) == 4.0 and entropy(["a"] * 8) == 0.0 and entropy([]) == 0.0


RING = """ring 64
x = input() {{name="x", role="client"}} : share[10] q20 <=64.0
y = mul(x, x) : share[10] q40 <=4096.0
z = trunc(y) {{bits=20, variant="{variant}", width={width}}} : share[10] q20 <=4097.0
r = reveal(z) {{name="y", to="client"}} : share[10] q20 <=4097.0
return "y"=r
"""


def test_failure_at_the_declared_bounds():
    """A local truncation of x fails with |x| / 2^64, so ten of them at their bound with ten times that."""
    local = parse_ring(RING.format(variant="local", width=48))
    assert local_elements(local) == 10
    assert math.isclose(failure_at_bounds(local), 10 * 4096 * 2.0**40 / 2.0**64)
    assert failure_at_bounds(parse_ring(RING.format(variant="safe", width=63))) == 0.0


def test_both_figures_of_failure():
    program = tiny.prefix_program()
    found = audit(program).failure
    assert found.local_truncations == program.bundle.manifest.local_truncations > 0
    assert found.like_calibration == program.bundle.manifest.failure_probability
    assert found.at_bounds == failure_at_bounds(program.bundle.ring) > 0


# ** the command **
def call(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.call([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def test_every_part_has_the_digest_of_the_whole(capsys, tmp_path, saved):
    whole = json.loads(call(capsys, "audit", saved, "--json")[1])
    for role, path in zip(ROLES, split_program(saved, tmp_path / "parts", ROLES), strict=True):
        part = json.loads(call(capsys, "audit", path, "--role", role, "--json")[1])
        assert part["roles"] == {role: whole["roles"][role]} and part["digest"] == whole["digest"]
        if part["program"]["reduced"]:  # the helper's: what is inside MPC, and nothing of the model
            assert (role, part["weights"]["evidence"], part["numbers"]) == ("helper", [], [])
            assert part["opened"] == whole["opened"] and part["failure"]["at_bounds"] == whole["failure"]["at_bounds"]
        else:
            assert part | {"roles": whole["roles"]} == whole


def test_all_of_it_in_words(capsys, saved):
    digest = audit(tiny.small_program()).digest
    code, out, _ = call(capsys, "audit", saved)
    assert code == 0 and f"digest {digest}" in out and "\x1b" not in out
    for part in ("Who gives what into MPC", "What is opened", "Who learns what", "private weights", "explicit rule"):
        assert part in out
    code, out, err = call(capsys, "audit", saved, "--role", "dealer")
    assert (code, out) == (2, "") and "ring has no role 'dealer'" in err


def edit(path, change) -> None:
    """Change the source as its author can: with the digest of what it has become."""
    manifest = path.with_suffix(".mpcc") / "manifest.json"
    table, text = json.loads(manifest.read_text()), change(path.read_text())
    path.write_text(text)
    table["digests"]["source"] = hashlib.sha256(text.encode()).hexdigest()
    manifest.write_text(json.dumps(table))


def test_an_edited_source_is_refused(capsys, saved):
    edit(saved, lambda text: text + "print_ln('%s', 1)\n")
    code, out, err = call(capsys, "audit", saved)
    assert (code, out) == (2, "") and "the source is not the one that its ring.ir says" in err and err.count("\n") == 1


def test_names_of_a_file_do_nothing_on_a_terminal(capsys, tmp_path, saved):
    manifest = saved.with_suffix(".mpcc") / "manifest.json"
    table = json.loads(manifest.read_text())
    table["evidence"][0]["tensor"] = "a\x1b[2J\u202eb"
    manifest.write_text(json.dumps(table))
    code, out, err = call(capsys, "audit", saved)
    assert (code, out) == (2, "") and err.rstrip("\n").isprintable()
    code, _, err = call(capsys, "audit", tmp_path / "a\x1b[2Jb.mpc")
    assert code == 2 and err.rstrip("\n").isprintable() and "a?[2Jb.mpc" in err


# ** taking part **
def party(capsys, path, *options) -> tuple[int, str, str]:
    return call(capsys, "party", path, "--role", "helper", "--hosts", path.with_name("none.toml"), *options)


def test_only_the_accepted_program_is_taken_part_in(capsys, saved, monkeypatch):
    """Another digest ends it before the engine is even looked for; the right one gets that far."""
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    digest = audit(tiny.small_program()).digest
    code, out, err = party(capsys, saved, "--accept", digest[:-1] + ("0" if digest[-1] != "0" else "1"))
    assert (code, out, err.count("\n")) == (2, "", 1) and f"its digest is {digest}" in err
    code, _, err = party(capsys, saved, "--accept", digest.upper())
    assert code == 3 and f"digest {digest}" in err and "opened: " in err and "MP_SPDZ_HOME" in err
    assert party(capsys, saved)[2] == err  # who pins nothing is told the same


@pytest.mark.parametrize("accepted", ["", "abc", "g" * 64, "a" * 63])
def test_what_is_no_digest_accepts_nothing(accepted):
    with pytest.raises(MpccError, match="no digest"):
        check_accepted("a" * 64, accepted)
