"""The text form of the ring IR: prints and parses back exactly (numbers by repr).

    ring 64
    r0 = input() {name="x", role="client"} : share[2,4] q16 <=8.0
    r1 = param() {tensors=("w",)} : share[4,4] q16 <=1.0 @ "linear_0" "encoder.0" "linear"
    r2 = matmul(r0, r1) : share[2,4] q32 <=32.0 @ "linear_0" "encoder.0" "linear" -> "linear_0"
    r3 = repeat(r2) {carried=1, count=6} : share[] q0 <=0.0 {
      b0 = arg() {index=0, kind="carried"} : share[2,4] q32 <=32.0
      return "c0"=b0
    }
    r4 = take(r3) {index=0} : share[2,4] q32 <=32.0
    r5 = reveal(r4) {name="y", to="client"} : share[2,4] q32 <=32.0
    return "y"=r5

After `:` stand publicity, shape, fractional bits and bound; after `@` the graph node, layer and graph operation a value
comes from; after `->` the graph node whose result it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.ir import RingGraph, RingNode, RingOrigin, RingType
from mpcc.compiler.types import DEEPEST, LONGEST_NUMBER, MOST_DIMENSIONS, MOST_NUMBERS, Attr

NAME = re.compile(r"[A-Za-z_][\w.]*")
TOKEN = re.compile(
    r"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*")
             | (?P<number>-?(?:inf|nan|\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.]))
             | (?P<name>[A-Za-z_][\w.]*)
             | (?P<sign>->|<=|[=(){}\[\],:@]) )""",
    re.VERBOSE,
)
SCALE = re.compile(r"q[0-9]{1,9}")
CONSTANTS: dict[str, Attr] = {"None": None, "True": True, "False": False}


# ** printing **
def print_ring(graph: RingGraph) -> str:
    """The text of `graph`, ending in a newline."""
    return "\n".join([f"ring {graph.ring_bits}", *_lines(graph, "")]) + "\n"


def _lines(graph: RingGraph, indent: str) -> list[str]:
    lines: list[str] = []
    for node in graph.nodes:
        lines.append(f"{indent}{_head(node)}{' {' if node.body is not None else ''}")
        if node.body is not None:
            if node.body.ring_bits != graph.ring_bits:
                raise InternalError(f"{node.name}: the body has another ring than the program")
            lines += [*_lines(node.body, indent + "  "), f"{indent}}}"]
    outputs = ", ".join(f"{json.dumps(name)}={_name(source)}" for name, source in graph.outputs)
    return [*lines, f"{indent}return {outputs}".rstrip()]


def _head(node: RingNode) -> str:
    text = f"{_name(node.name)} = {_name(node.op)}({', '.join(_name(n) for n in node.inputs)})"
    if node.attrs:
        text += " {" + ", ".join(f"{_name(key)}={_value(value)}" for key, value in node.attrs) + "}"
    text += f" : {_type(node.type)}"
    if node.origin != RingOrigin():
        origin = (node.origin.node, node.origin.layer, node.origin.graph_op)
        text += " @ " + " ".join(json.dumps(part) for part in origin)
    return text + (f" -> {json.dumps(node.result_of)}" if node.result_of else "")


def _type(type: RingType) -> str:
    shape = ",".join(map(str, type.shape))
    return f"{'public' if type.public else 'share'}[{shape}] q{type.frac_bits} <={type.bound!r}".replace("q-", "q -")


def _value(value: Attr) -> str:
    if isinstance(value, tuple):
        return "(" + "".join(f"{_value(v)}, " for v in value).removesuffix(" " if len(value) == 1 else ", ") + ")"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InternalError(f"{name!r} cannot be printed as a name")
    return name


# ** parsing **
def parse_ring(text: str) -> RingGraph:
    """The graph that `text` (from `print_ring`) describes; InternalError with the line if it is malformed."""
    parser = _Parser(text)
    parser.expect("ring")
    graph = parser.graph(parser.integer())
    if parser.token.kind != "end":
        raise parser.error("more text after the end")
    return graph


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    """One after the other: all of them at once would take a hundred times the memory of the text."""
    end, stop, line = 0, len(text.rstrip()), 1
    while end < stop:
        match = TOKEN.match(text, end)
        if match is None or match.lastgroup is None:
            raise InternalError(f"ring text, line {line}: cannot read {text[end : end + 20].strip()!r}")
        line += text.count("\n", end, match.end())
        yield _Token(match.lastgroup, match[match.lastgroup], line)
        end = match.end()
    yield _Token("end", "", line)


class _Parser:
    """Recursive descent; `token` is the next one."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self._depth = 0
        self.token = next(self._rest)

    def error(self, what: str) -> InternalError:
        return InternalError(f"ring text, line {self.token.line}: {what}")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further into values or bodies: hostile text must not exhaust the stack."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} levels of nesting")
        yield
        self._depth -= 1

    def take(self, kind: str) -> str:
        """The text of the next token, which has to be of `kind`."""
        token = self.token
        if token.kind != kind:
            raise self.error(f"expected a {kind}, found {token.text[:40]!r}")
        self.token = next(self._rest, token)
        return token.text

    def accept(self, text: str) -> bool:
        if self.token.text != text or self.token.kind not in ("sign", "name"):
            return False
        self.take(self.token.kind)
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.token.text[:40]!r}")

    def number(self) -> int | float:
        text = self.take("number")
        if len(text) > LONGEST_NUMBER:
            raise self.error("a number is too long")
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def integer(self) -> int:
        value = self.number()
        if not isinstance(value, int):
            raise self.error(f"expected an integer, found {value!r}")
        return value

    def string(self) -> str:
        text = self.take("string")
        try:
            return str(json.loads(text))
        except ValueError:
            raise self.error("a quoted text has a bad escape") from None

    def graph(self, ring_bits: int) -> RingGraph:
        nodes: list[RingNode] = []
        while not self.accept("return"):
            nodes.append(self.node(ring_bits))
        outputs: list[tuple[str, str]] = []
        while self.token.kind == "string":
            name = self.string()
            self.expect("=")
            outputs.append((name, self.take("name")))
            self.accept(",")
        return RingGraph(tuple(nodes), tuple(outputs), ring_bits)

    def node(self, ring_bits: int) -> RingNode:
        name = self.take("name")
        self.expect("=")
        op = self.take("name")
        self.expect("(")
        inputs: list[str] = []
        while not self.accept(")"):
            inputs.append(self.take("name"))
            self.accept(",")
        attrs = self.attrs() if self.accept("{") else ()
        self.expect(":")
        node = RingNode(name, op, tuple(inputs), attrs, self.type())
        if self.accept("@"):
            node = replace(node, origin=RingOrigin(self.string(), self.string(), self.string()))
        if self.accept("->"):
            node = replace(node, result_of=self.string())
        if self.accept("{"):
            with self.deeper():
                node = replace(node, body=self.graph(ring_bits))
            self.expect("}")
        return node

    def attrs(self) -> tuple[tuple[str, Attr], ...]:
        result: list[tuple[str, Attr]] = []
        while not self.accept("}"):
            key = self.take("name")
            self.expect("=")
            result.append((key, self.value()))
            self.accept(",")
        return tuple(result)

    def value(self) -> Attr:
        if self.accept("("):
            items: list[Attr] = []
            while not self.accept(")"):
                with self.deeper():
                    items.append(self.value())
                if len(items) > MOST_NUMBERS and not isinstance(items[-1], str):
                    raise self.error("a list is too long")
                self.accept(",")
            return tuple(items)
        if self.token.kind == "name" and self.token.text in CONSTANTS:
            return CONSTANTS[self.take("name")]
        return self.string() if self.token.kind == "string" else self.number()

    def type(self) -> RingType:
        publicity = self.take("name")
        if publicity not in ("share", "public"):
            raise self.error(f"expected share or public, found {publicity[:40]!r}")
        self.expect("[")
        shape: list[int] = []
        while not self.accept("]"):
            shape.append(self.integer())
            if len(shape) > MOST_DIMENSIONS:
                raise self.error(f"more than {MOST_DIMENSIONS} dimensions")
            self.accept(",")
        scale = self.take("name")
        if scale != "q" and not SCALE.fullmatch(scale):
            raise self.error(f"expected a scale, found {scale[:40]!r}")
        frac_bits = self.integer() if scale == "q" else int(scale.removeprefix("q"))
        self.expect("<=")
        return RingType(tuple(shape), frac_bits, self.number(), publicity == "public")
