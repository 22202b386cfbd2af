"""Where the parties of this machine work, and what they see of it.

Everything happens in one private temporary folder, with a folder below it for each party, which is removed afterwards
(unless MPCC_KEEP_WORK=1), at the latest when mpcc is used here the next time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.leftovers import claim, remove_stale
from mpcc.runtime.parties.watchdog import Watchdog

KEEP = "MPCC_KEEP_WORK"
_PREFIX = "mpcc-"
FULL_BYTES = 1 << 16  # less free space than this is none at all
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@contextlib.contextmanager
def working_folder() -> Iterator[tuple[Path, Watchdog]]:
    """A private folder and the watchdog that removes it afterwards; an OSError inside becomes an EngineError.

    Programs that find no room on the disk fail in many ways, some without a word: that there is none is said instead.
    """
    parent = Path(tempfile.gettempdir())
    try:
        remove_stale(parent, _PREFIX)
        work, keep = Path(tempfile.mkdtemp(prefix=_PREFIX)), os.environ.get(KEEP) == "1"  # mode 0700
        with Watchdog(work, keep=keep) as watchdog:
            if not keep:
                claim(work)
            try:
                yield work, watchdog
            except EngineError as error:
                if shutil.disk_usage(work).free < FULL_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
    except OSError as error:
        raise EngineError(
            f"the working folder or a process of it cannot be used: {error.strerror or error}",
            where=str(parent),
            todo="make room there, or set TMPDIR to another folder",
        ) from error


def environment() -> dict[str, str]:
    """What a child process sees of ours: nothing that could change what it does, and no byte code written by Python."""
    passed = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1"}
