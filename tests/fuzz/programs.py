"""Compiled programs whose files are changed, and what each role does with a program that it received."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console

import mpcc
from mpcc.compiler.bundle import read
from mpcc.compiler.graph.text import print_graph
from mpcc.compiler.ring.text import print_ring
from mpcc.exchange import run_session
from mpcc.loading import load
from mpcc.program import Program
from mpcc.report.program import show_program
from mpcc.runtime.engine import Options
from mpcc.runtime.engines import engine_named
from mpcc.runtime.mp_spdz.emitted import emitted
from mpcc.runtime.spu.code import code_of
from mpcc.runtime.spu.folders import check_visibilities, request_of, values_of
from tests.bundle import tiny_programs as tiny
from tests.fuzz.places import place

TOKENS, WORDS = 4, 20
MOST_EMULATED = 2**22  # elements: what is honest but takes long is not run here


class Stack(torch.nn.Module):
    """A public table and equal private layers, which become a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(WORDS, 4)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        self.out = torch.nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids)
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return self.out(x.mean(1))


class Kit:
    """A saved program, whose files are put into place one at a time, and an input for it."""

    def __init__(self, name: str, program: Program, sample: dict[str, object]) -> None:
        remember_programs()
        self.name, self.program, self.sample = name, program, sample
        folder = self.path.parent
        self.originals = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    @property
    def path(self) -> Path:
        return place(self.name, lambda folder: self.program.save(folder / "prog.mpc")) / "prog.mpc"

    def content(self, file: str) -> bytes:
        return self.originals[_inside(file)]

    @contextlib.contextmanager
    def with_file(self, file: str, content: bytes) -> Iterator[None]:
        """Replace a file, and its digest where that stands: its author is the enemy."""
        old, new = (hashlib.sha256(c).hexdigest().encode() for c in (self.content(file), content))
        changed = {t: self.originals[t].replace(old, new) for t in _TABLES if old in self.originals[t]}
        changed[_inside(file)] = content
        folder = self.path.parent
        for name, value in changed.items():
            (folder / name).write_bytes(value)
        try:
            yield
        finally:
            for name in changed:
                (folder / name).write_bytes(self.originals[name])


_TABLES = ("prog.mpcc/manifest.json", "prog.mpcc/provider/manifest.json")


def _inside(file: str) -> str:
    return file if file == "prog.mpc" else f"prog.mpcc/{file}"


@functools.cache
def stack() -> Kit:
    torch.manual_seed(0)
    rules = mpcc.Partition.from_rules({"public": ["table.*"]})
    ids = torch.randint(1, WORDS, (1, TOKENS))
    made = mpcc.compile(Stack().eval(), {"input_ids": ids}, rules, calibrate_random=4)
    assert made.bundle.client is not None and any(n.op == "repeat" for n in made.bundle.ring)
    client = replace(made.bundle.client, tokenizer_json=tiny.tokenizer_json())
    return Kit("stack", Program(replace(made.bundle, client=client)), {"input_ids": ids.tolist()})


@functools.cache
def encoder() -> Kit:
    """Two layers of BERT, the first one public."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kit = Kit("encoder", tiny.prefix_program(), {k: v.tolist() for k, v in tiny.sample().items()})
    load(kit.path)
    return kit


@functools.cache
def remember_programs() -> None:
    """Parse and verify each text once: all files of a program are read for every case, and one of them is new."""
    parse_ring, check = functools.lru_cache(maxsize=8)(read.parse_ring), read.verify
    verified: list[object] = []

    def verify(ring: object, **options: object) -> None:
        if not any(ring is known for known in verified):
            check(ring, **options)
            verified[:] = [*verified[-7:], ring]

    read.parse_ring, read.verify = parse_ring, verify
    read.parse_graph = functools.lru_cache(maxsize=16)(read.parse_graph)


# ** what is done with a program **
def inspected(kit: Kit) -> None:
    """`mpcc inspect`, all of it, and `mpcc explain` of one node."""
    program = load(kit.path)
    json.dumps(program.to_json())
    console = Console(file=StringIO(), width=100)
    with redirect_stdout(StringIO()):
        show_program(console, program, None, ["layer", "operation", "primitive"])
    print_graph(program.bundle.graph).encode()
    print_ring(program.bundle.ring).encode()
    for node in program.bundle.graph.operations()[:2]:
        program.explain(node.name)


def run_here(kit: Kit) -> None:
    """`mpcc run --engine emulator`."""
    program = load(kit.path)
    program.prepared(kit.sample)
    if sum(n.type.elements * times for n, times in program.bundle.ring.walk()) <= MOST_EMULATED:
        run_session(program, [kit.sample], engine_named("emulator", Options()))


def party(kit: Kit) -> None:
    """`mpcc party` in every role, up to where it would connect to the others."""
    for role in ("helper", "client", "provider"):
        program = load(kit.path, {role} & {"client", "provider"})
        engine_named("mp-spdz", Options()).roles(program.protocol)
        emitted(program.deployment())
        if role == "client":
            program.client_stream(kit.sample)
        elif role == "provider":
            program.provider_stream()


def spu_party(kit: Kit) -> None:
    """`mpcc party --engine spu` in every role, up to where its compiler would be started."""
    for role in ("helper", "client", "provider"):
        program = load(kit.path, {role} & {"client", "provider"})
        deployment = program.deployment()
        request = program.prepared(kit.sample).request if role == "client" else None
        code = code_of(deployment)
        check_visibilities(code, deployment.public)
        values_of(code, "public", deployment.public)
        if request is not None:
            request_of(code, request.values)
        elif role == "provider":
            values_of(code, "provider", program.provider_weights())


def reader_of(kit: Callable[[], Kit], name: str, use: Callable[[Kit], None]) -> Callable[[bytes], None]:
    """What becomes of a program of which one file has another content."""

    def read_it(content: bytes) -> None:
        with kit().with_file(name, content):
            use(kit())

    return read_it
