"""Symbolic sizes in an exported program: which of its strings PyTorch may see.

`torch.export.load` hands the text of every symbolic size to sympy, which evaluates it as Python. So a text is read here
first, by a grammar that knows integers, the names that PyTorch gives to sizes (s53, u0) and a closed list of functions;
whatever is not in the grammar never reaches sympy. The same goes for guards, which PyTorch compiles as Python.

Pure: text in, a tree or a refusal out.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LONGEST_TEXT, MOST_TOKENS, DEEPEST = 4000, 400, 40
LARGEST_EXPONENT, MOST_POWERS = 16, 4  # powers and shifts are computed at once: their results must stay small

# name -> fewest and most arguments
FUNCTIONS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("Add", "Mul", "Max", "Min", "And", "Or"), (1, 64)),
    **dict.fromkeys(("Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv"), (2, 2)),
    **dict.fromkeys(("Pow", "PowByNatural", "LShift", "RShift", "RoundDecimal"), (2, 2)),
    **dict.fromkeys(("CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat"), (1, 1)),
    **dict.fromkeys(("Identity", "Not"), (1, 1)),
    **dict.fromkeys(("Eq", "Ne", "Equality", "Unequality", "StrictLessThan", "LessThan"), (2, 2)),
    **dict.fromkeys(("StrictGreaterThan", "GreaterThan"), (2, 2)),
    **dict.fromkeys(("Where", "ModularIndexing"), (3, 3)),
}
POWERS = frozenset({"Pow", "PowByNatural", "LShift", "RShift", "RoundDecimal", "**"})
ASSUMPTIONS = frozenset({"integer", "positive", "nonnegative", "real", "finite", "nonzero"})
_SYMBOL = re.compile(r"(?:s|u|ps|zf|zuf)[0-9]{1,5}")
_NUMBER = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,30})?(?:e[+-]?[0-9]{1,3})?")
_TOKEN = re.compile(
    r"(?P<float>[0-9]+\.[0-9]+(?:e[+-]?[0-9]+)?)|(?P<int>[0-9]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'[A-Za-z0-9_.+-]*')|(?P<sign>\*\*|//|==|!=|<=|>=|[-+*/%(),=<>\[\].])"
)
_COMPARISONS = frozenset({"==", "!=", "<=", ">=", "<", ">"})


class Refused(ValueError):
    """The text is not in the grammar; the message says why, in a few words."""


@dataclass(frozen=True)
class Expression:
    """A node of the tree: `head` is a function, an operator, "int", "float", "symbol", "bool" or "size"."""

    head: str
    value: int | float | str | bool | None = None
    operands: tuple[Expression, ...] = ()


def is_symbol(name: str) -> bool:
    """Whether PyTorch would give this name to a size."""
    return bool(_SYMBOL.fullmatch(name))


def is_identifier(name: str) -> bool:
    """Whether a name is safe as one in generated Python: ASCII, no keyword, nothing like `__class__`."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name) is not None
    return plain and not keyword.iskeyword(name) and not (name.startswith("__") and name.endswith("__"))


def parse_size(text: str) -> Expression:
    """The tree of a symbolic size, as `torch.export.save` writes it (sympy's srepr) or in infix form.

    Raises:
        Refused: the text is not in the grammar, too long or too deep.
    """
    reader = _Reader(_tokens(text))
    return reader.whole(reader.sum)


def parse_guard(text: str) -> Expression:
    """The tree of a guard: a comparison of sizes of inputs, such as `L['x'].size()[1] % 8 == 0`.

    Raises:
        Refused: as for `parse_size`.
    """
    reader = _Reader(_tokens(text), guard=True)
    return reader.whole(reader.either)


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LONGEST_TEXT:
        raise Refused("it is too long")
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        match = _TOKEN.match(text, place)
        if match is None:
            raise Refused("it has a character that no size has")
        tokens.append((str(match.lastgroup), match[0]))
        place = match.end()
    if len(tokens) > MOST_TOKENS:
        raise Refused("it has too many parts")
    return tokens


Rule = Callable[[], Expression]


@dataclass
class _Reader:
    """Recursive descent over the tokens; every level of nesting passes through `atom` or `prefixed`."""

    tokens: list[tuple[str, str]]
    guard: bool = False
    place: int = 0
    depth: int = 0
    powers: int = 0

    # ** tokens **
    def next_is(self, *signs: str) -> bool:
        return self.place < len(self.tokens) and self.tokens[self.place][1] in signs

    def take(self, kind: str, *allowed: str) -> str:
        if self.place >= len(self.tokens):
            raise Refused("it ends too early")
        found, text = self.tokens[self.place]
        if found != kind or (allowed and text not in allowed):
            raise Refused(f"{text!r} cannot stand where it does")
        self.place += 1
        return text

    def whole(self, rule: Rule) -> Expression:
        tree = rule()
        if self.place != len(self.tokens):
            raise Refused(f"{self.tokens[self.place][1]!r} cannot stand where it does")
        return tree

    # ** truth values, of guards only **
    def either(self) -> Expression:
        return self.joined("or", self.both)

    def both(self) -> Expression:
        return self.joined("and", self.negated)

    def joined(self, word: str, rule: Rule) -> Expression:
        parts = [rule()]
        while self.next_is(word):
            self.take("name", word)
            parts.append(rule())
        return parts[0] if len(parts) == 1 else Expression(word, None, tuple(parts))

    def negated(self) -> Expression:
        if self.next_is("not"):
            self.take("name", "not")
            return Expression("not", None, (self.deeper(self.negated),))
        return self.compared()

    def compared(self) -> Expression:
        left = self.sum()
        if self.next_is(*_COMPARISONS):
            sign = self.take("sign", *_COMPARISONS)
            return Expression(sign, None, (left, self.sum()))
        return left

    # ** arithmetic **
    def sum(self) -> Expression:
        return self.chain(("+", "-"), self.product)

    def product(self) -> Expression:
        return self.chain(("*", "/", "//", "%"), self.prefixed)

    def chain(self, signs: tuple[str, ...], rule: Rule) -> Expression:
        left = rule()
        while self.next_is(*signs):
            sign = self.take("sign", *signs)
            left = Expression(sign, None, (left, rule()))
        return left

    def prefixed(self) -> Expression:
        if self.next_is("-"):
            self.take("sign", "-")
            return Expression("neg", None, (self.deeper(self.prefixed),))
        base = self.deeper(self.atom)
        if self.next_is("**"):
            self.take("sign", "**")
            return self.power("**", (base, self.deeper(self.prefixed)))
        return base

    def deeper(self, rule: Rule) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Refused("it is nested too deeply")
        tree = rule()
        self.depth -= 1
        return tree

    def power(self, head: str, operands: tuple[Expression, ...]) -> Expression:
        self.powers += 1
        if self.powers > MOST_POWERS or not -1 <= _constant(operands[1]) <= LARGEST_EXPONENT:
            raise Refused("it has a power or shift that is too large")
        return Expression(head, None, operands)

    # ** atoms **
    def atom(self) -> Expression:
        if self.place >= len(self.tokens):
            raise Refused("it ends too early")
        kind, text = self.tokens[self.place]
        if kind == "int":
            return self.integer()
        if kind == "float" and not self.guard:
            return Expression("float", _float(self.take("float")))
        if text == "(":
            self.take("sign", "(")
            tree = self.either() if self.guard else self.sum()
            self.take("sign", ")")
            return tree
        if kind == "name":
            return self.size() if self.guard and text == "L" else self.named(self.take("name"))
        raise Refused(f"{text!r} cannot stand where it does")

    def integer(self) -> Expression:
        text = self.take("int")
        if len(text) > 19:
            raise Refused("it has a number that is too large")
        return Expression("int", int(text))

    def named(self, name: str) -> Expression:
        if self.next_is("("):
            return self.call(name)
        if name in ("true", "false", "True", "False"):
            return Expression("bool", name.lower() == "true")
        if is_symbol(name) and not self.guard:
            return Expression("symbol", name)
        raise Refused(f"the name {name[:40]!r} is not known")

    def call(self, name: str) -> Expression:
        self.take("sign", "(")
        special = {"Symbol": self.symbol, "Integer": self.signed, "Rational": self.rational, "Float": self.real}
        if name in special and not self.guard:
            tree = special[name]()
        elif name in FUNCTIONS:
            tree = self.function(name)
        else:
            raise Refused(f"the function {name[:40]!r} is not known")
        self.take("sign", ")")
        return tree

    def function(self, name: str) -> Expression:
        operands = [self.sum()]
        while self.next_is(","):
            self.take("sign", ",")
            operands.append(self.sum())
        fewest, most = FUNCTIONS[name]
        if not fewest <= len(operands) <= most:
            raise Refused(f"{name} has a wrong number of arguments")
        found = tuple(operands)
        return self.power(name, found) if name in POWERS else Expression(name, None, found)

    def symbol(self) -> Expression:
        name = self.take("text").strip("'")
        if not is_symbol(name):
            raise Refused("it has a symbol whose name PyTorch would not choose")
        while self.next_is(","):
            self.take("sign", ",")
            self.take("name", *ASSUMPTIONS)
            self.take("sign", "=")
            self.take("name", "True", "False")
        return Expression("symbol", name)

    def signed(self) -> Expression:
        if self.next_is("-"):
            self.take("sign", "-")
            return Expression("neg", None, (self.integer(),))
        return self.integer()

    def rational(self) -> Expression:
        upper = self.signed()
        self.take("sign", ",")
        lower = self.integer()
        if lower.value == 0:
            raise Refused("it divides by zero")
        return Expression("Rational", None, (upper, lower))

    def real(self) -> Expression:
        text = self.take("text").strip("'")
        self.take("sign", ",")
        self.take("name", "precision")
        self.take("sign", "=")
        if not 1 <= int(self.take("int")[:9]) <= 1000:
            raise Refused("it has a number of too many digits")
        negative = text.startswith("-")
        return Expression("float", -_float(text[1:]) if negative else _float(text))

    def size(self) -> Expression:
        """`L['x'].size()[0]`: a size of an input, which may stand in a dictionary or list."""
        self.take("name", "L")
        path: list[str] = []
        while self.next_is("["):
            self.take("sign", "[")
            kind = self.tokens[self.place][0] if self.place < len(self.tokens) else ""
            path.append(self.take("text").strip("'") if kind == "text" else self.take("int"))
            self.take("sign", "]")
        if not path or not all(is_identifier(p) or p.isdigit() for p in path):
            raise Refused("it reads something that is no input")
        for kind, text in (("sign", "."), ("name", "size"), ("sign", "("), ("sign", ")"), ("sign", "[")):
            self.take(kind, text)
        index = self.integer()
        self.take("sign", "]")
        return Expression("size", ".".join(path), (index,))


def _constant(tree: Expression) -> int:
    """The value of an integer that is written out, else a number beyond every limit."""
    if tree.head == "int":
        return int(tree.value or 0)
    return -_constant(tree.operands[0]) if tree.head == "neg" else LARGEST_EXPONENT + 1


def _float(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise Refused("it has a number that is too large")
    return float(text)
