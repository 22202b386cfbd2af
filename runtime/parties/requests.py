"""The client's side of a session: requests go through a pipe, answers are read as soon as they are there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Int64

_PIPE = 1 << 20  # bytes a pipe holds, if the system allows
Answer = dict[str, Int64]


def framed(requests: Iterable[Int64], numbered: bool = False) -> Iterator[Int64]:
    """The requests, between them 1 (there is another one), after the last 0; each as soon as it is known.

    Requests that are `numbered` begin with the number of their program, which takes the place of the 1.
    """
    number = 0
    for number, request in enumerate(requests, 1):
        if number > 1 and not numbered:
            yield np.ones(1, np.int64)
        yield request
    if not number:
        raise EngineError("a session needs at least one request")
    yield np.zeros(1, np.int64)


class Feeder:
    """Writes the client's stream into a named pipe, in a thread: a request is made when the one before is written."""

    def __init__(self, pipe: Path, head: Int64, requests: Iterable[Int64], elements: Sequence[int]) -> None:
        """`head` comes first; a request has as many ring elements as `elements` says for its program.

        Where there are several programs, a request begins with the number of its program, from 1.
        """
        os.mkfifo(pipe, 0o600)
        self.pipe, self.elements = pipe, elements
        self.asked: list[int] = []  # the programs of the requests, counted from 0
        self.parts = chain([head], framed(self._checked(requests), len(elements) > 1))
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Raise what went wrong while a request was made."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """End the thread; what is not written stays so. Call it when the client's party is gone."""
        self.stop.set()
        self.thread.join(1)

    def _checked(self, requests: Iterable[Int64]) -> Iterator[Int64]:
        several = len(self.elements) > 1
        for request in requests:
            program = int(request[0]) - 1 if several else 0
            wanted = self.elements[program] + several
            if request.size != wanted:
                raise EngineError(f"a request has {request.size} ring elements, the program takes {wanted}")
            self.asked.append(program)
            yield request

    def _run(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError), os.fdopen(self._open(), "wb") as file:
                for part in self.parts:
                    file.write(part.astype("<i8").tobytes())
                    file.flush()
                    if self.stop.is_set():
                        return
        except InterruptedError:
            pass
        except BaseException as error:
            self.error = error

    def _open(self) -> int:
        """Open the pipe as soon as the party reads it."""
        while not self.stop.is_set():
            try:
                descriptor = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                time.sleep(0.005)
                continue
            os.set_blocking(descriptor, True)
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
            return descriptor
        raise InterruptedError


class Answers:
    """Reads complete answers from the client's binary output: the outputs, then eight zero bytes."""

    def __init__(
        self,
        path: Path,
        outputs: Sequence[tuple[tuple[str, int], ...]],
        on_answer: Callable[[int, Answer], None],
        asked: Sequence[int],
    ) -> None:
        """`outputs` of every program; `asked` are the programs of the requests so far."""
        self.path, self.outputs, self.on_answer, self.asked = path, outputs, on_answer, asked
        self.rest, self.position = b"", 0
        self.done: list[Answer] = []

    def collect(self) -> None:
        """Take what has come since the last call."""
        if not self.path.is_file() or stat.S_ISFIFO(self.path.stat().st_mode):
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            fresh = file.read()
        self.position += len(fresh)
        self.rest += fresh
        while len(self.done) < len(self.asked):
            outputs = self.outputs[self.asked[len(self.done)]]
            length = 8 * (sum(size for _, size in outputs) + 1)
            if len(self.rest) < length:
                return
            content, self.rest = self.rest[:length], self.rest[length:]
            self.done.append(_split(np.frombuffer(content, "<i8").astype(np.int64), outputs))
            self.on_answer(len(self.done) - 1, self.done[-1])


def _split(values: Int64, outputs: Sequence[tuple[str, int]]) -> Answer:
    if values[-1] != 0:
        raise EngineError("the client received something else than the program promises", where="party 0")
    ends = np.cumsum([size for _, size in outputs])
    return {name: values[end - size : end] for (name, size), end in zip(outputs, ends, strict=True)}
