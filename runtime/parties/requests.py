"""The client's side of a session: requests go through a pipe, answers are read as soon as they are there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Int64

_PIPE = 1 << 20  # bytes a pipe holds, if the system allows
Answer = dict[str, Int64]


def framed(requests: Iterable[Int64]) -> Iterator[Int64]:
    """The requests, between them 1 (there is another one), after the last 0; each as soon as it is known."""
    number = 0
    for number, request in enumerate(requests, 1):
        if number > 1:
            yield np.ones(1, np.int64)
        yield request
    if not number:
        raise EngineError("a session needs at least one request")
    yield np.zeros(1, np.int64)


class Feeder:
    """Writes the client's stream into a named pipe, in a thread: a request is made when the one before is written."""

    def __init__(self, pipe: Path, head: Int64, requests: Iterable[Int64], elements: int) -> None:
        """`head` comes first; a request has `elements` ring elements."""
        os.mkfifo(pipe, 0o600)
        self.pipe, self.elements = pipe, elements
        self.parts = chain([head], framed(self._checked(requests)))
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
        for request in requests:
            if request.size != self.elements:
                raise EngineError(f"a request has {request.size} ring elements, the program takes {self.elements}")
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
        self, path: Path, outputs: tuple[tuple[str, int], ...], on_answer: Callable[[int, Answer], None]
    ) -> None:
        self.path, self.outputs, self.on_answer = path, outputs, on_answer
        self.size = 8 * (sum(size for _, size in outputs) + 1)
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
        while len(self.rest) >= self.size:
            content, self.rest = self.rest[: self.size], self.rest[self.size :]
            self.done.append(self._split(np.frombuffer(content, "<i8").astype(np.int64)))
            self.on_answer(len(self.done) - 1, self.done[-1])

    def _split(self, values: Int64) -> Answer:
        if values[-1] != 0:
            raise EngineError("the client received something else than the program promises", where="party 0")
        ends = np.cumsum([size for _, size in self.outputs])
        return {name: values[end - size : end] for (name, size), end in zip(self.outputs, ends, strict=True)}
