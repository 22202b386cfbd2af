"""Errors that reach a user.

Every mistake of a user ends in one `MpccError`: what went wrong, where in the model, what to do about it. The command
line prints it without a traceback and exits with `exit_code`. A bug of ours is an `InternalError`.
No message may contain the value of a weight or of an input.
"""

from __future__ import annotations


class MpccError(Exception):
    """A mistake the user can mend (exit code 2).

    `what` is one sentence; `where` names the layer, file or field; `todo` says what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        parts = [what]
        if where:
            parts.append(f"at {where}")
        if todo:
            parts.append(todo)
        super().__init__("; ".join(parts))


class UnsupportedError(MpccError):
    """The model uses operations that cannot run inside MPC; all of them are listed in one error."""


class PartitionError(MpccError):
    """The evidence of what is public is missing, does not match or contradicts itself."""


class RangeError(MpccError):
    """A value does not fit the ring or the domain of its approximation."""


class InputError(MpccError):
    """An input has the wrong name, shape, type or value."""


class BundleError(MpccError):
    """A program file is missing, corrupt, or does not belong to its bundle."""


class EngineError(MpccError):
    """An engine or a party failed (exit code 3)."""

    exit_code = 3


class InternalError(Exception):
    """A broken invariant inside mpcc: a bug, please report it."""
