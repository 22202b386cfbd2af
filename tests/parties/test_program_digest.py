"""One digest for all roles, and which part of the program it is that differs."""

from dataclasses import replace

import numpy as np
import pytest

from mpcc.compiler.ring.text import parse_ring, print_ring
from mpcc.loading import load
from mpcc.runtime import program_digest
from mpcc.runtime.parties.agreement import differing
from mpcc.runtime.program_digest import program_parts
from mpcc.split import split_program
from tests.bundle import tiny_programs as tiny

ROLES = ("client", "provider", "helper")


@pytest.fixture(scope="module")
def program():
    return tiny.private_program().deployment()


def test_every_role_has_the_same(tmp_path, program):
    """From its own files, whichever of them it has."""
    tiny.private_program().save(tmp_path / "prog.mpc")
    parts = split_program(tmp_path / "prog.mpc", tmp_path / "parts", ROLES)
    found = [load(path, {role} - {"helper"}).deployment() for role, path in zip(ROLES, parts, strict=True)]
    assert {program_digest.program_digest(one) for one in found} == {program_digest.program_digest(program)}


def other_ring(program):
    """With one number of the text changed."""
    text = print_ring(program.ring)
    other = text.replace(" q16 ", " q15 ", 1)
    assert other != text
    return replace(program, ring=parse_ring(other))


def changed(program, **fields):
    return replace(program, manifest=replace(program.manifest, **fields))


@pytest.mark.parametrize(
    "change, names",
    [
        (other_ring, ("ir",)),
        (lambda p: replace(p, public={"w": np.zeros(3, np.float32)}), ("public weights",)),
        (lambda p: changed(p, protocol="dealer-ring"), ("protocol",)),
        (lambda p: changed(p, truncation="nearest"), ("options",)),
        (lambda p: changed(p, labels={0: "no"}, evidence=()), ()),
    ],
)
def test_what_differs_has_a_name(program, change, names):
    assert differing(program_parts(program), program_parts(change(program))) == names


def test_another_mpcc(program, monkeypatch):
    own = program_parts(program)
    monkeypatch.setattr(program_digest.metadata, "version", lambda name: "0.0.9")
    assert differing(own, program_parts(program)) == ("mpcc version",)


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.ones(3, np.float32)},
        {"v": np.zeros(3, np.float32)},
        {"w": np.zeros(3, np.int32)},
        {"w": np.zeros((3, 1), np.float32)},
        {},
    ],
)
def test_every_public_weight_counts(program, other):
    given = replace(program, public={"w": np.zeros(3, np.float32)})
    assert differing(program_parts(given), program_parts(replace(program, public=other))) == ("public weights",)
