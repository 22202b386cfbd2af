"""Working folders whose owner was killed together with its watchdog: the next start removes them.

A folder says whose it is in the file `owner`: the process, when it began, and since which start of the machine this
counts. A folder without it, or of another user, stays.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

OWNER = "owner"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STARTED = 19  # the field of /proc/<pid>/stat, counted from the state on


def claim(folder: Path) -> None:
    """Say that the folder is this process's. Where the system does not tell when a process began, nothing is said."""
    began = _began(os.getpid())
    if began is not None:
        (folder / OWNER).write_text(json.dumps({"pid": os.getpid(), "began": began, "boot": _boot()}), "ascii")


def remove_stale(parent: Path, prefix: str) -> list[Path]:
    """Remove the folders in `parent` whose name begins with `prefix` and whose owner is gone; which these were."""
    found = [folder for folder in parent.glob(f"{prefix}*") if _is_stale(folder)]
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _is_stale(folder: Path) -> bool:
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        owner = json.loads((folder / OWNER).read_text("ascii"))
        return bool(owner["boot"] != _boot() or _began(int(owner["pid"])) != owner["began"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine started; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return int(fields[_STARTED])
    except (OSError, IndexError, ValueError):
        return None


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""
