"""The text form of a graph: one node per line, parsed back to the same graph.

    graph {
      %ids = input {role="client"} : i64[1,8] site=client
      %w = param {tensor="encoder.weight"} : f32[4,4] @ "encoder" "modeling.py:12" visibility=provider
      %y = linear(%x, %w) {} : f32[1,4] range=[-1.5,2.0] stats={spread=3.5}
      return "logits" = %y
    }

A repeat carries its body between braces after the word `body`, on lines of their own. Names with characters other
than [A-Za-z0-9_.] are quoted. Floats are written so that they come back bit by bit; inf, -inf and nan are words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.graph.ir import Graph, Node, Origin
from mpcc.compiler.types import (
    DEEPEST,
    DTYPES,
    LONGEST_NUMBER,
    MOST_DIMENSIONS,
    MOST_NUMBERS,
    SITES,
    VISIBILITIES,
    Attr,
    TensorType,
)

_PLAIN = re.compile(r"[A-Za-z0-9_.]+")
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<number>-?(?:\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|inf)(?![\w.]))"""
    r"""|(?P<word>[A-Za-z0-9_.]+)|(?P<sign>[%(){}\[\],=:@]))""",
    re.VERBOSE,
)


def print_graph(graph: Graph) -> str:
    """The graph as text, ending in a newline."""
    return "\n".join(["graph {", *_lines(graph, "  "), "}"]) + "\n"


def _lines(graph: Graph, indent: str) -> list[str]:
    lines: list[str] = []
    for node in graph.nodes:
        lines.append(indent + _node(node) + (" body {" if node.body is not None else ""))
        if node.body is not None:
            lines += [*_lines(node.body, indent + "  "), indent + "}"]
    results = ", ".join(f"{json.dumps(name)} = {_name(value)}" for name, value in graph.outputs)
    return [*lines, f"{indent}return {results}".rstrip()]


def _node(node: Node) -> str:
    inputs = f"({', '.join(_name(n) for n in node.inputs)})" if node.inputs else ""
    attrs = ", ".join(f"{_word(k)}={_attr(v)}" for k, v in node.attrs)
    text = f"{_name(node.name)} = {_word(node.op)}{inputs}{f' {{{attrs}}}' if attrs else ''} : {node.type}"
    if node.origin != Origin():
        text += f" @ {json.dumps(node.origin.layer)} {json.dumps(node.origin.source)}"
    if node.visibility:
        text += f" visibility={_word(node.visibility)}"
    if node.site:
        text += f" site={_word(node.site)}"
    if node.range is not None:
        text += f" range=[{_attr(node.range[0])},{_attr(node.range[1])}]"
    if node.stats:
        text += f" stats={{{', '.join(f'{_word(k)}={_attr(v)}' for k, v in node.stats)}}}"
    if node.members:
        text += f" members=({', '.join(json.dumps(m) for m in node.members)})"
    return text


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _name(name: str) -> str:
    return f"%{_word(name)}"


def _attr(value: Attr) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"({', '.join(_attr(v) for v in value)})"
    raise InternalError(f"an attribute of type {type(value).__name__}")


def parse_graph(text: str) -> Graph:
    """The graph that `print_graph` wrote.

    Raises:
        BundleError: the text is not a graph; the message names the line.
    """
    parser = _Parser(_tokens(text))
    parser.expect("graph")
    parser.expect("{")
    graph = parser.graph()
    parser.expect("}")
    if parser.peek().kind != "end":
        raise parser.error("text after the graph")
    return graph


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    """One after the other: all of them at once would take a hundred times the memory of the text."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        at, end = 0, len(line.rstrip())
        while at < end:
            match = _TOKEN.match(line, at)
            if match is None or match.lastgroup is None:
                raise BundleError("the graph text has a character that does not belong there", where=f"line {number}")
            yield _Token(match.lastgroup, match.group(match.lastgroup), number)
            at = match.end()
    yield _Token("end", "", len(lines))


class _Parser:
    """Recursive descent over tokens; every error names the line."""

    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._rest = tokens
        self._token = next(tokens)
        self._depth = 0

    def peek(self) -> _Token:
        return self._token

    def next(self) -> _Token:
        token = self._token
        self._token = next(self._rest, token)
        return token

    def error(self, what: str, token: _Token | None = None) -> BundleError:
        return BundleError(f"the graph text is malformed: {what}", where=f"line {(token or self.peek()).line}")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further into nested values or bodies; hostile text must not exhaust the stack."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} levels of nesting")
        yield
        self._depth -= 1

    def accept(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind in ("sign", "word"):
            self.next()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.peek().text[:40]!r}")

    def word(self) -> str:
        """A bare word or a quoted string."""
        token = self.peek()
        if token.kind == "string":
            return self.string()
        if token.kind in ("word", "number") and not token.text.startswith("-"):
            return self.next().text
        raise self.error(f"expected a name, found {token.text[:40]!r}")

    def string(self) -> str:
        if self.peek().kind != "string":
            raise self.error("expected a quoted string")
        try:
            return str(json.loads(self.peek().text))
        except ValueError:
            raise self.error("a quoted string has a bad escape") from None
        finally:
            self.next()

    def name(self) -> str:
        self.expect("%")
        return self.word()

    def graph(self) -> Graph:
        nodes: list[Node] = []
        seen: set[str] = set()
        while not self.accept("return"):
            node = self.node(seen)
            seen.add(node.name)
            nodes.append(node)
        outputs: list[tuple[str, str]] = []
        while self.peek().kind == "string":
            key = self.string()
            self.expect("=")
            outputs.append((key, self.known(seen)))
            if not self.accept(","):
                break
        return Graph(tuple(nodes), tuple(outputs))

    def known(self, seen: set[str]) -> str:
        token, name = self.peek(), self.name()
        if name not in seen:
            raise self.error(f"%{name} is used before it is defined", token)
        return name

    def node(self, seen: set[str]) -> Node:
        token, name = self.peek(), self.name()
        if name in seen:
            raise self.error(f"%{name} is defined twice", token)
        self.expect("=")
        op = self.word()
        inputs: list[str] = []
        if self.accept("("):
            while not self.accept(")"):
                inputs.append(self.known(seen))
                if self.peek().text != ")":
                    self.expect(",")
        attrs = self.attrs() if self.accept("{") else ()
        self.expect(":")
        type_ = self.type()
        origin = Origin(self.string(), self.string()) if self.accept("@") else Origin()
        visibility = self.field("visibility", VISIBILITIES)
        site = self.field("site", SITES)
        range_ = self.range()
        stats = self.stats()
        members = self.members()
        body = None
        if self.accept("body"):
            self.expect("{")
            with self.deeper():
                body = self.graph()
            self.expect("}")
        return Node(name, op, tuple(inputs), attrs, type_, origin, visibility, site, range_, stats, members, body)

    def field(self, key: str, known: Container[str]) -> str:
        if not self.accept(key):
            return ""
        self.expect("=")
        word = self.word()
        if word not in known:
            raise self.error(f"no {key} {word[:40]!r}")
        return word

    def stats(self) -> tuple[tuple[str, float], ...]:
        if not self.accept("stats"):
            return ()
        self.expect("=")
        self.expect("{")
        pairs = self.attrs()
        numbers = tuple((k, v) for k, v in pairs if isinstance(v, (int, float)))
        if len(numbers) != len(pairs):
            raise self.error("a statistic must be a number")
        return numbers

    def members(self) -> tuple[str, ...]:
        if not self.accept("members"):
            return ()
        self.expect("=")
        value = self.value()
        if not isinstance(value, tuple):
            raise self.error("members must be a list of names")
        return tuple(str(v) for v in value)

    def attrs(self) -> tuple[tuple[str, Attr], ...]:
        result: list[tuple[str, Attr]] = []
        while not self.accept("}"):
            key = self.word()
            self.expect("=")
            result.append((key, self.value()))
            if self.peek().text != "}":
                self.expect(",")
        return tuple(result)

    def value(self) -> Attr:
        token = self.peek()
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            return self.number()
        if self.accept("("):
            items: list[Attr] = []
            while not self.accept(")"):
                with self.deeper():
                    items.append(self.value())
                if len(items) > MOST_NUMBERS and not isinstance(items[-1], str):
                    raise self.error("a list is too long")
                if self.peek().text != ")":
                    self.expect(",")
            return tuple(items)
        words: dict[str, Attr] = {"none": None, "true": True, "false": False, "nan": math.nan}
        if token.kind == "word" and token.text in words:
            return words[self.next().text]
        raise self.error(f"expected a value, found {token.text[:40]!r}")

    def number(self) -> int | float:
        token = self.peek()
        if token.kind != "number":
            if self.accept("nan"):
                return math.nan
            raise self.error("expected a number")
        if len(token.text) > LONGEST_NUMBER:
            raise self.error("a number is too long")
        self.next()
        return int(token.text) if re.fullmatch(r"-?\d+", token.text) else float(token.text)

    def range(self) -> tuple[float, float] | None:
        if not self.accept("range"):
            return None
        self.expect("=")
        self.expect("[")
        low = self.number()
        self.expect(",")
        high = self.number()
        self.expect("]")
        return (low, high)

    def type(self) -> TensorType:
        dtype = self.word()
        if dtype not in DTYPES:
            raise self.error(f"no element type {dtype[:40]!r}")
        self.expect("[")
        shape: list[int] = []
        while not self.accept("]"):
            size = self.number()
            if not isinstance(size, int) or size < 0:
                raise self.error("a size must be a non-negative integer")
            shape.append(size)
            if len(shape) > MOST_DIMENSIONS:
                raise self.error(f"more than {MOST_DIMENSIONS} dimensions")
            if self.peek().text != "]":
                self.expect(",")
        return TensorType(tuple(shape), dtype)
