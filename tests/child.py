"""Processes that tests start and send signals to."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence

SLOW_START = 300.0  # seconds in which a process that imports torch is done with a small thing, on a busy machine


def start(command: Sequence[str], **options: object) -> subprocess.Popen:
    """A process with the default handling of signals.

    What runs in the background of a shell script ignores SIGINT, and every process below it inherits that.
    """
    ignored = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        return subprocess.Popen(command, **options)
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
