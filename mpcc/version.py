"""Which mpcc this is: the version, and the commit where it is known."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

PACKAGE = "mpcc"
HERE = Path(__file__).resolve().parent
DIGITS, TIMEOUT_SECONDS = 10, 5
RECORD = "commit.txt"  # git archive writes the commit into it


def described() -> str:
    """For example "mpcc 0.1.0 (commit 84c5340ab1, changed)". Never fails: what is not known is left out."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    known = commit()
    return f"{PACKAGE} {version}" + (f" (commit {known})" if known else "")


def commit() -> str:
    """The commit of the git checkout that this runs from, else the one that was installed; empty where unknown."""
    sources: tuple[Callable[[], str], ...] = (_of_checkout, _of_installation, _of_archive)
    for source in sources:
        try:
            found = source()
        except (OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError):
            continue
        if found:
            return found
    return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HERE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    return done.stdout.strip()


def _of_checkout() -> str:
    """Of this folder's own repository; an environment that stands inside some repository is none of its files."""
    if Path(_git("rev-parse", "--show-toplevel")).resolve() != HERE.parent:
        return ""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", f"--short={DIGITS}", "HEAD") + (", changed" if changed else "")


def _of_installation() -> str:
    """As pip recorded it for `pip install git+...`."""
    text = metadata.distribution(PACKAGE).read_text("direct_url.json")
    return str(json.loads(text)["vcs_info"]["commit_id"])[:DIGITS] if text else ""


def _of_archive() -> str:
    text = (HERE / RECORD).read_text("utf-8").strip()
    return "" if text.startswith("$") else text[:DIGITS]
