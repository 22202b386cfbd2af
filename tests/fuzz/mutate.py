"""Changes to a file, as an enemy who knows its form would make them; each follows from the random numbers given."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = (
    *("0", "1", "-1", "2", "3", "7", "31", "32", "63", "64", "255", "65536", "-2147483648", "2147483648"),
    *("1000000000", "4294967296", "9007199254740993", "9223372036854775808", "1" + "0" * 30, "9" * 320, "9" * 5000),
    *("0.0", "-0.0", "0.5", "1e-300", "1e308", "1e999", "-1e999", "nan", "inf", "-inf", "NaN", "Infinity"),
)
TEXTS = (
    *(
        "",
        " ",
        "client",
        "provider",
        "helper",
        "everybody",
        "public",
        "secret",
        "x" * 300,
        "../../etc/passwd",
        "/dev/zero",
    ),
    *("\x1b[2J", "\n", "\u202e", "\ud800", "\x00", "%s{0}$(id)`id`", "__import__('os')", "local", "safe", "nearest"),
)
_NUMBER = re.compile(rb"-?\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b")
_WORD = re.compile(rb"[A-Za-z_][\w.]*")
_QUOTED = re.compile(rb'"(?:[^"\\\n]|\\.)*"')


# ** of any bytes **
def flip_bits(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(dice.choice((1, 1, 2, 8))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def put_bytes(dice: random.Random, data: bytes) -> bytes:
    at, width = dice.randrange(len(data) + 1), dice.choice((0, 1, 1, 4))
    return data[:at] + dice.randbytes(dice.choice((1, 2, 8))) + data[at + width :]


def delete(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + dice.choice((1, 2, 10, 100, 1000)) :]


def duplicate(dice: random.Random, data: bytes) -> bytes:
    at, width = dice.randrange(len(data) + 1), dice.choice((1, 10, 100, 1000))
    return data[: at + width] + data[at : at + width] * dice.choice((1, 1, 3)) + data[at + width :]


def truncate(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def swap_lines(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def drop_line(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    del lines[dice.randrange(len(lines))]
    return b"\n".join(lines)


def repeat_line(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))
    return b"\n".join(lines)


def nest(dice: random.Random, data: bytes) -> bytes:
    """A thousand brackets that are never closed, or are."""
    at, (left, right) = dice.randrange(len(data) + 1), dice.choice((b"[]", b"{}", b"()", b'"\\'))[:2]
    depth = dice.choice((3, 40, 1000, 100_000))
    return data[:at] + bytes([left]) * depth + bytes([right]) * dice.choice((0, depth)) + data[at:]


# ** of numbers, words and texts **
def _replaced(dice: random.Random, data: bytes, pattern: re.Pattern[bytes], new: Callable[[bytes], bytes]) -> bytes:
    """One match of a pattern replaced, or now and then all equal ones."""
    found = list(pattern.finditer(data))
    if not found:
        return put_bytes(dice, data)
    one = dice.choice(found)
    if dice.random() < 0.2:
        return re.sub(rb"(?<![\w.])" + re.escape(one[0]) + rb"(?![\w.])", lambda _: new(one[0]), data)
    return data[: one.start()] + new(one[0]) + data[one.end() :]


def number(dice: random.Random, data: bytes) -> bytes:
    def new(old: bytes) -> bytes:
        near = [str(int(old) + d).encode() for d in (-1, 1)] if old.lstrip(b"-").isdigit() and len(old) < 20 else []
        return dice.choice([*near, dice.choice(NUMBERS).encode()])

    return _replaced(dice, data, _NUMBER, new)


def word(dice: random.Random, data: bytes) -> bytes:
    """A word of the file in the place of another."""
    words = sorted(set(_WORD.findall(data))) or [b"x"]
    return _replaced(dice, data, _WORD, lambda _: dice.choice(words))


def quoted(dice: random.Random, data: bytes) -> bytes:
    """Another text, of the file or an extreme one."""
    texts = sorted(set(_QUOTED.findall(data))) or [b'""']
    return _replaced(
        dice, data, _QUOTED, lambda _: dice.choice([*texts[:200], json.dumps(dice.choice(TEXTS)).encode()])
    )


# ** of the IRs **
def attribute(dice: random.Random, data: bytes) -> bytes:
    """The value of an attribute, or the attribute away."""
    values = [
        b"true",
        b"none",
        b"None",
        b"()",
        b"(1, 2)",
        b'("a",)',
        b'"a"',
        b"((((1))))",
        dice.choice(NUMBERS).encode(),
    ]
    return _replaced(
        dice,
        data,
        re.compile(rb"\b\w+=(?:\([^()\n]*\)|\"[^\"\n]*\"|[^,{}()\s]+)"),
        lambda old: dice.choice([b"", old.partition(b"=")[0] + b"=" + dice.choice(values)]),
    )


def shape(dice: random.Random, data: bytes) -> bytes:
    def new(old: bytes) -> bytes:
        sizes = old[1:-1].split(b",")
        sizes[dice.randrange(len(sizes))] = dice.choice(NUMBERS).encode()
        return b"[" + b",".join(dice.choice([sizes, sizes[::-1], sizes[1:], [*sizes, b"1"]])) + b"]"

    return _replaced(dice, data, re.compile(rb"\[[\d,]*\]"), new)


def operand(dice: random.Random, data: bytes) -> bytes:
    """Another value of the program as an operand, one operand more or less."""
    names = sorted(set(re.findall(rb"%?\b[\w.]+(?= = )", data))) or [b"x"]

    def new(old: bytes) -> bytes:
        parts = [p.strip() for p in old[1:-1].split(b",")]
        parts[dice.randrange(len(parts))] = dice.choice(names)
        return b"(" + b", ".join(dice.choice([parts, parts[::-1], parts[1:], parts * 2])) + b")"

    return _replaced(dice, data, re.compile(rb"\((?:%?[A-Za-z_][\w.]*, )*%?[A-Za-z_][\w.]*\)"), new)


def operation(dice: random.Random, data: bytes) -> bytes:
    known = sorted(set(re.findall(rb"(?<= = )\w+", data))) or [b"x"]
    others = [b"reveal", b"repeat", b"take", b"arg", b"input", b"param", b"const", b"trunc", b"print", b"__class__"]
    return _replaced(dice, data, re.compile(rb"(?<= = )\w+"), lambda _: dice.choice([*known, *others]))


def receiver(dice: random.Random, data: bytes) -> bytes:
    """Who gets an output, who gives an input, what is public, where something is computed."""
    swaps = [
        (b'to="client"', b'to="provider"'),
        (b'role="client"', b'role="public"'),
        (b'role="client"', b'role="provider"'),
        (b": share[", b": public["),
        (b": public[", b": share["),
        (b"visibility=provider", b"visibility=public"),
        (b"visibility=secret", b"visibility=client"),
        (b"site=mpc", b"site=client"),
        (b"ring 64", b"ring 72"),
    ]
    old, new = dice.choice([s for s in swaps if s[0] in data] or [(b"", b"x")])
    places = [m.start() for m in re.finditer(re.escape(old), data)]
    at = dice.choice(places)
    return data[:at] + new + data[at + len(old) :]


def reveal_more(dice: random.Random, data: bytes) -> bytes:
    """One more value opened, in a ring program or by a graph."""
    names = re.findall(rb"(?m)^\s*(%?[\w.]+) = ", data) or [b"x"]
    name = dice.choice(names)
    head, _, tail = data.rpartition(b"return ")
    types = re.findall(
        rb"(?m)^\s*" + re.escape(name) + rb" = .* : (share\[.*?\] q -?\d+ <=\S+|share\[\S* q\d+ <=\S+)", data
    )
    line = b'leak = reveal(%s) {name="leak", to="client"} : %s\n' % (name, types[0] if types else b"share[] q0 <=1.0")
    return head + line + b'return "leak"=leak, ' + tail if types else head + b'return "leak" = %s, ' % name + tail


def loop(dice: random.Random, data: bytes) -> bytes:
    """Rounds of a loop, or a loop where there was none."""
    if b"count=" in data and dice.random() < 0.7:
        return re.sub(rb"count=\d+", b"count=" + dice.choice(NUMBERS[:20]).encode(), data, count=1)
    body = b"return"
    for level in range(dice.choice((1, 2, 5, 40, 2000))):
        inner = b"n%d = repeat(n) {carried=0, count=%d} : share[] q0 <=0.0 {\n" % (
            level,
            dice.choice((1, 9, 10**5, 10**9)),
        )
        body = inner + b"m = const() {value=1} : public[] q0 <=1.0\n" + body + b"\n}\nreturn"
    head, _, tail = data.rpartition(b"return ")
    first = b"n = const() {value=1} : public[] q0 <=1.0\n"
    return head + first + body.removesuffix(b"return") + b"return " + tail


# ** of JSON **
def json_value(dice: random.Random, data: bytes) -> bytes:
    """One value of a document by another: of another type, extreme, of another place, or away."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        return number(dice, data)
    places: list[tuple[Any, Any]] = []
    _collect(table, places)
    if not places:
        return put_bytes(dice, data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        holder, key = dice.choice(places)
        _change(dice, holder, key, places)
    return json.dumps(table).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        places.append((value, key))
        _collect(value[key], places)


def _change(dice: random.Random, holder: Any, key: Any, places: Sequence[tuple[Any, Any]]) -> None:
    if not _has(holder, key):
        return
    kind = dice.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = dice.choice(places)
        value = other[place] if _has(other, place) else None
        holder[key] = json.loads(json.dumps(value)) if value is not holder else None
    elif kind == 2 and isinstance(holder, dict):
        holder[dice.choice(TEXTS)] = holder.pop(key)
    elif kind == 3:
        holder[key] = [holder[key]] * dice.choice((0, 1, 3, 300))
    elif kind == 4:
        holder[key] = dice.choice(TEXTS)
    else:
        holder[key] = dice.choice([None, True, {}, [], *(_json_number(n) for n in NUMBERS)])


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _json_number(text: str) -> object:
    return int(text) if text.lstrip("-").isdigit() and len(text) < 4000 else float(text)


# ** by the form of a file **
ANY: tuple[Mutation, ...] = (flip_bits, put_bytes, delete, duplicate, truncate)
LINES: tuple[Mutation, ...] = (swap_lines, drop_line, repeat_line)
WORDS: tuple[Mutation, ...] = (number, number, word, quoted, nest)
IR: tuple[Mutation, ...] = (attribute, shape, operand, operation, receiver, reveal_more, loop, number, word, quoted)
FORMS: Mapping[str, tuple[Mutation, ...]] = {
    "bytes": ANY,
    "text": (*ANY, *LINES, *WORDS),
    "json": (*ANY, *WORDS, *[json_value] * 15),
    "ir": (*ANY, *LINES, nest, *IR, *IR),
}


def mutated(form: str, dice: random.Random, data: bytes) -> bytes:
    """The file changed once, or a few times."""
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        data = dice.choice(FORMS[form])(dice, data)
    return data
