"""Starting programs so that they can be interrupted, also where SIGINT is ignored by inheritance.

Shells start background jobs of scripts with SIGINT ignored, and so does nohup; what these start inherits it. mpcc keeps
to that itself, but its parties are its own to end. Run as a script, with a command as its arguments, this file puts the
defaults back and becomes the command; it imports nothing of mpcc.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_ENDING = (signal.SIGINT, signal.SIGTERM)


def interruptible(command: Sequence[str]) -> list[str]:
    """The command, with the defaults put back first where this process ignores a signal that ends others."""
    if all(signal.getsignal(number) is not signal.SIG_IGN for number in _ENDING):
        return list(command)
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *command]


def main() -> None:
    """Become the command."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
