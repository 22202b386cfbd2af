"""`mpcc --version`: with the commit where it is known, and without it wherever anything is missing."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import metadata
from types import SimpleNamespace

import pytest

from mpcc import version
from mpcc.cli.app import call

NUMBER = metadata.version("mpcc")


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a folder mpcc/ that holds one file; the process believes that it runs from there."""
    folder = tmp_path / "mpcc"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(version, "HERE", folder)
    return tmp_path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No checkout and no record of an installation."""
    monkeypatch.setattr(version, "HERE", tmp_path)
    monkeypatch.setattr(
        metadata, "distribution", lambda name: SimpleNamespace(version=NUMBER, read_text=lambda file: None)
    )
    return tmp_path


def test_the_commit_of_a_checkout(checkout, capsys):
    assert call(["--version"]) == 0
    head = git(checkout, "rev-parse", "HEAD")[: version.DIGITS]
    assert capsys.readouterr().out == f"mpcc {NUMBER} (commit {head})\n"
    (checkout / "mpcc" / "a.py").write_text("x = 2\n")
    assert version.described() == f"mpcc {NUMBER} (commit {head}, changed)"


def test_an_installation_inside_somebody_elses_checkout(checkout, monkeypatch):
    inside = checkout / ".venv" / "mpcc"
    inside.mkdir(parents=True)
    monkeypatch.setattr(version, "HERE", inside)
    assert not re.search(git(checkout, "rev-parse", "HEAD")[: version.DIGITS], version.described())


def test_the_commit_that_pip_recorded(nowhere, monkeypatch):
    record = json.dumps({"url": "https://example.org", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}})
    monkeypatch.setattr(
        metadata, "distribution", lambda name: SimpleNamespace(version=NUMBER, read_text=lambda file: record)
    )
    assert version.described() == f"mpcc {NUMBER} (commit 0123456789)"


def test_the_commit_that_an_archive_recorded(nowhere):
    (nowhere / version.RECORD).write_text("fedcba98765432\n")
    assert version.described() == f"mpcc {NUMBER} (commit fedcba9876)"


@pytest.mark.parametrize("record", ["{", "[]", '{"vcs_info": null}'])
def test_it_never_fails(nowhere, monkeypatch, record):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(
        metadata, "distribution", lambda name: SimpleNamespace(version=NUMBER, read_text=lambda file: record)
    )
    assert version.described() == f"mpcc {NUMBER}"
    (nowhere / version.RECORD).write_text("$Format:%H$\n")
    assert version.described() == f"mpcc {NUMBER}"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version.described() == "mpcc (not installed)"
