"""The command line: `mpcc compile | inspect | run | explain | ...`, one file for each group of commands.

Results go to stdout, progress, notes and errors to stderr. Exit codes: 0 done, 1 a check failed, 2 the user's mistake,
3 an engine or party failed, 70 a bug of mpcc, 130 interrupted, 143 ended by SIGTERM.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated

import typer

from mpcc.cli import audit, check, compile, deploy, explain, finetune, generate, inspect, run
from mpcc.cli.options import TRACEBACK
from mpcc.compiler.errors import MpccError
from mpcc.compiler.types import printable
from mpcc.version import described

BUG, INTERRUPTED, TERMINATED = 70, 130, 143
_FEW = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, of a share of it, of a file
# typer brings its own click; the base of its usage errors has no public name
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _Terminated(BaseException):
    """SIGTERM came: what is running ends, and its folders go, as when the user interrupts it."""


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compile fine-tuned transformers to secure multi-party programs, inspect them and run them.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile.compile_command,
    "inspect": inspect.inspect,
    "audit": audit.audit_command,
    "run": run.run,
    "generate": generate.generate,
    "explain": explain.explain,
    "verify": check.verify_command,
    "doctor": check.doctor_command,
    "provision": deploy.provision,
    "split": deploy.split,
    "keys": deploy.keys,
    "party": deploy.party,
    "finetune": finetune.finetune_command,
}


def _version(wanted: bool) -> None:
    if wanted:
        print(described())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and the commit.")
    ] = False,
) -> None:
    pass


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _one_line(error: MpccError) -> str:
    """The message on one line; only a list of more than a few gaps keeps its lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > _FEW + 2:
        return "\n  ".join(lines)
    return "; ".join(line.rstrip(":;") if i < len(lines) - 1 else line.lstrip("; ") for i, line in enumerate(lines))


def _quiet() -> None:
    """No warnings and progress bars of libraries between ours."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def call(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments and return its exit code."""
    shown = TRACEBACK in arguments
    try:
        code = typer.main.get_command(app).main(list(arguments) or ["--help"], prog_name="mpcc", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _failed("interrupted", INTERRUPTED, False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", INTERRUPTED, False)
    except _Terminated:
        return _failed("ended by SIGTERM", TERMINATED, False)
    except MpccError as error:
        return _failed(f"error: {_one_line(error)}", error.exit_code, shown)
    except _UsageError as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _failed(f"error: {str(message).rstrip('.')}; see mpcc --help", 2, False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has read enough
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            return _bug(error, shown)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written would fail again
        return _failed(f"error: cannot write: {error.strerror}; make room, or write elsewhere", 2, shown)
    except Exception as error:
        return _bug(error, shown)


def _bug(error: Exception, shown: bool) -> int:
    hint = "" if shown else f" (with the output of {TRACEBACK})"
    name = type(error).__name__
    return _failed(f"this is a bug in mpcc, please report it{hint}: {name}: {_first_line(error)}", BUG, shown)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _plain(line: str) -> str:
    """Without signs that do something on a terminal: a message may quote a file."""
    return line if printable(line) else "".join(c if printable(c) else "?" for c in line)


def _failed(message: str, code: int, shown: bool) -> int:
    if shown:
        traceback.print_exc()
    print("\n".join(map(_plain, f"mpcc: {message}".split("\n"))), file=sys.stderr)
    return code


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Terminated


def main() -> None:
    """Entry point of the `mpcc` command."""
    _quiet()
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(call(sys.argv[1:]))
