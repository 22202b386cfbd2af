"""Working folders whose owner was killed together with its watchdog: the next start removes them.

A folder says whose it is in the file `owner`: the process, when it began, and where these numbers count. Folders may be
shared between machines and containers, which do not see each other's processes: whoever cannot know whether an owner
still lives leaves its folder alone. So it does with a folder that names no owner, or belongs to another user.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

OWNER = "owner"
_BOOT, _MACHINE = Path("/proc/sys/kernel/random/boot_id"), Path("/etc/machine-id")
_NAMESPACE = Path("/proc/self/ns/pid")
_INITIAL = "pid:[4026531836]"  # the process numbers of the machine itself, the same in every Linux
_STARTED = 19  # the field of /proc/<pid>/stat, counted from the state on


def claim(folder: Path) -> None:
    """Say that the folder is this process's. Where the system does not tell when a process began, nothing is said."""
    began = _began(os.getpid())
    if began is not None:
        (folder / OWNER).write_text(json.dumps({"pid": os.getpid(), "began": began, **_here()}), "ascii")


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
        here = _here()
        if owner["namespace"] != here["namespace"] or not here["namespace"] or not here["boot"]:
            return False
        if owner["boot"] == here["boot"]:
            return bool(_began(int(owner["pid"])) != owner["began"])
        # started anew since: only outside of containers is a machine's number its own
        return bool(here["namespace"] == _INITIAL and here["machine"] and owner["machine"] == here["machine"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine started; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return int(fields[_STARTED])
    except (OSError, IndexError, ValueError):
        return None


def _here() -> dict[str, str]:
    """Where the number of a process means something: since which start of which machine, among which processes."""
    try:
        namespace = str(_NAMESPACE.readlink())
    except OSError:
        namespace = ""
    return {"boot": _read(_BOOT), "machine": _read(_MACHINE), "namespace": namespace}


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
