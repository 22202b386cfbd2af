"""Programs that cannot be written: one clear error, and what was there stays."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import mpcc
from mpcc.compiler.bundle import files as bundle_files
from mpcc.compiler.errors import BundleError
from tests.bundle import tiny_programs as tiny

FILES = 10  # in a bundle; the source comes last


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    tiny.small_program().save(folder / "prog.mpc")
    assert sum(p.is_file() for p in (folder / "prog.mpcc").rglob("*")) == FILES
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "here"))


def fail_at(monkeypatch, number, code):
    """The write of the `number`-th file fails after its first bytes."""
    count = iter(range(1000))
    real = bundle_files.write_part

    def write(root, part):
        if next(count) == number:
            (root / part.name).parent.mkdir(exist_ok=True)
            (root / part.name).write_bytes(b"half")
            raise OSError(code, os.strerror(code))
        real(root, part)

    monkeypatch.setattr(bundle_files, "write_part", write)


@pytest.mark.parametrize("number", range(FILES + 1))
@pytest.mark.parametrize("existing", [False, True])
def test_no_space_leaves_everything_as_it_was(original, tmp_path, monkeypatch, number, existing):
    folder = tmp_path / "here"
    shutil.copytree(original, folder) if existing else folder.mkdir()
    before = tiny.snapshot(folder)
    fail_at(monkeypatch, number, errno.ENOSPC)
    with pytest.raises(BundleError, match=r"no space left to write the program: it needs [\d.]+ MB \(\d+ bytes\)"):
        tiny.small_program().save(folder / "prog.mpc")
    assert tiny.snapshot(folder) == before


def test_too_little_space_is_found_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_files.shutil, "disk_usage", lambda path: SimpleNamespace(total=1000, used=990, free=10))
    with pytest.raises(BundleError, match="no space left"):
        tiny.small_program().save(tmp_path / "prog.mpc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["folder", "source"])
def test_failing_swap_puts_the_old_bundle_back(folder, monkeypatch, step):
    before = tiny.snapshot(folder)

    def refuse(self, target):
        raise OSError(errno.EIO, "Input/output error")

    if step == "source":
        monkeypatch.setattr(Path, "replace", refuse)
    else:
        real = Path.rename

        def rename(self, target):
            return refuse(self, target) if self.name == "bundle" else real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(BundleError, match="Input/output error"):
        tiny.small_program(1).save(folder / "prog.mpc")
    monkeypatch.undo()
    assert tiny.snapshot(folder) == before
    mpcc.load(folder / "prog.mpc")


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_files, "_sync", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tiny.small_program().save(tmp_path / "prog.mpc")
    assert not list(tmp_path.iterdir())


def test_replacing_a_bundle(folder):
    tiny.small_program(1).save(folder / "prog.mpc")
    assert mpcc.load(folder / "prog.mpc").source == tiny.small_program(1).source
    assert sorted(p.name for p in folder.iterdir()) == ["prog.mpc", "prog.mpcc"]


def test_places_that_cannot_be_written(folder, tmp_path, monkeypatch):
    program = tiny.small_program()
    with pytest.raises(BundleError, match="no such folder"):
        program.save(tmp_path / "none" / "prog.mpc")
    with pytest.raises(BundleError, match="no such folder"):
        program.save(folder / "prog.mpc" / "prog.mpc")
    (tmp_path / "a.mpc").mkdir()
    with pytest.raises(BundleError, match="a folder has its name"):
        program.save(tmp_path / "a.mpc")
    (tmp_path / "b.mpcc").mkdir()
    (tmp_path / "b.mpcc" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        program.save(tmp_path / "b.mpc")
    assert (tmp_path / "b.mpcc" / "thesis.txt").exists()
    with pytest.raises(BundleError, match=r"ends in \.mpc"):
        program.save(tmp_path / "prog.txt")
    monkeypatch.setattr(bundle_files.os, "access", lambda path, mode: False)
    with pytest.raises(BundleError, match="not writable"):
        program.save(folder / "prog.mpc")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("checked", [True, False])
def test_full_file_system(small_disk, monkeypatch, checked):
    if not checked:  # somebody else takes the space after we looked
        monkeypatch.setattr(bundle_files, "_check_space", lambda parent, needed: None)
    with pytest.raises(BundleError, match="no space left to write the program: it needs"):
        tiny.small_program().save(small_disk / "prog.mpc")
    assert not list(small_disk.iterdir())
