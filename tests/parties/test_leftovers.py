"""Folders of dead owners go at the next start, and no others."""

import json
import resource
import subprocess
import sys
import tempfile

import pytest

from mpcc.runtime.parties import leftovers
from mpcc.runtime.parties.folders import working_folder
from mpcc.runtime.parties.keys import Identity, install, make_identity
from mpcc.runtime.parties.leftovers import OWNER, claim, remove_stale
from mpcc.runtime.parties.watchdog import Watchdog

CLAIM = "import sys, pathlib; from mpcc.runtime.parties.leftovers import claim; claim(pathlib.Path(sys.argv[1]))"


def made(parent, name="mpcc-x"):
    folder = parent / name
    (folder / "client").mkdir(parents=True)
    return folder


def test_a_dead_owners_folder_is_removed(tmp_path):
    folder = made(tmp_path)
    subprocess.run([sys.executable, "-I", "-c", CLAIM, str(folder)], check=True)
    assert (folder / OWNER).exists()
    assert remove_stale(tmp_path, "mpcc-") == [folder] and not folder.exists()


def test_a_living_owners_folder_stays(tmp_path):
    folder = made(tmp_path)
    claim(folder)
    assert remove_stale(tmp_path, "mpcc-") == [] and folder.exists()


def changed(folder, **fields):
    """The folder, whose owner says something else of itself."""
    claim(folder)
    owner = json.loads((folder / OWNER).read_text())
    (folder / OWNER).write_text(json.dumps(owner | fields))
    return folder


def test_another_process_of_the_same_number(tmp_path):
    folder = changed(made(tmp_path), began=1)
    assert remove_stale(tmp_path, "mpcc-") == [folder]


@pytest.mark.parametrize(
    "fields",
    [
        {"boot": "of another machine", "machine": "another one"},
        {"boot": "of another machine", "machine": ""},
        {"namespace": "pid:[1]", "began": 1},
        {"namespace": "", "began": 1},
    ],
)
def test_an_owner_that_cannot_be_seen(tmp_path, fields):
    """On another machine or in another container it may live."""
    folder = changed(made(tmp_path), **fields)
    assert remove_stale(tmp_path, "mpcc-") == [] and folder.exists()


@pytest.mark.parametrize("namespace, stale", [("pid:[4026531836]", True), ("pid:[4026532200]", False)])
def test_the_machine_was_started_anew(tmp_path, monkeypatch, namespace, stale):
    """It is known by its number, but not in a container: images give theirs to many."""
    monkeypatch.setattr(leftovers, "_here", lambda: {"boot": "second", "machine": "5f", "namespace": namespace})
    folder = changed(made(tmp_path), boot="first")
    assert (remove_stale(tmp_path, "mpcc-") == [folder]) is stale


def test_the_next_start_removes_them(tmp_path, monkeypatch):
    """Of a process that was killed together with its watchdog."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("MPCC_KEEP_WORK", raising=False)
    folder = changed(made(tmp_path), began=1)
    with working_folder() as (work, _):
        assert not folder.exists() and (work / OWNER).exists() and remove_stale(tmp_path, "mpcc-") == []
    monkeypatch.setenv("MPCC_KEEP_WORK", "1")
    with working_folder() as (work, _):
        pass
    assert not (work / OWNER).exists()  # it was asked for


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b"7", b'{"pid": 1}'])
def test_what_is_not_known_to_be_ours_stays(tmp_path, content):
    folder = made(tmp_path)
    if content is not None:
        (folder / OWNER).write_bytes(content)
    assert remove_stale(tmp_path, "mpcc-") == [] and folder.exists()


def test_a_link_is_not_followed(tmp_path):
    outside = made(tmp_path / "outside")
    subprocess.run([sys.executable, "-I", "-c", CLAIM, str(outside)], check=True)
    (tmp_path / "mpcc-link").symlink_to(outside)
    assert remove_stale(tmp_path, "mpcc-") == [] and outside.exists()


def test_no_core_dumps(tmp_path):
    with Watchdog(tmp_path / "none", keep=True) as watchdog:
        process = watchdog.start(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            cwd=tmp_path,
            env={},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
        )
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (1, 1)
        watchdog.end(process)


def test_a_key_that_stays_is_not_copied(tmp_path):
    made_key = make_identity(0)
    kept = tmp_path / "client.key"
    kept.write_bytes(made_key.key)
    (tmp_path / "data").mkdir()
    install(tmp_path / "data", Identity("P0", made_key.certificate, made_key.key, kept), {"P0": made_key.certificate})
    assert (tmp_path / "data" / "P0.key").readlink() == kept.resolve()
