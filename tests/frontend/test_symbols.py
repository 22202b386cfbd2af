"""Texts of symbolic sizes: what is accepted means the same here and in PyTorch; nothing else reaches sympy."""

from __future__ import annotations

import re

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._sympy import functions as torch_functions

from mpcc.compiler.frontend.symbols import (
    ASSUMPTIONS,
    DEEPEST,
    FUNCTIONS,
    Expression,
    Refused,
    is_identifier,
    parse_guard,
    parse_size,
)

SYMBOLS = {"s0": 6, "s53": 17, "u1": 4}
LOCALS = {name: getattr(torch_functions, name) for name in ("FloorDiv", "Mod", "PythonMod", "CeilDiv")}


def value(tree: Expression) -> sympy.Rational:
    """What a tree of whole numbers stands for."""
    if tree.head == "int":
        return sympy.Integer(tree.value)
    if tree.head == "symbol":
        return sympy.Integer(SYMBOLS[str(tree.value)])
    parts = [value(o) for o in tree.operands]
    rules = {
        "neg": lambda a: -a,
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "%": lambda a, b: a % b,
        "//": lambda a, b: sympy.floor(a / b),
        "**": lambda a, b: a**b,
        "Add": lambda *a: sum(a, sympy.Integer(0)),
        "Mul": lambda *a: sympy.prod(a),
        "Max": max,
        "Min": min,
        "Pow": lambda a, b: a**b,
        "Mod": lambda a, b: a % b,
        "PythonMod": lambda a, b: a % b,
        "FloorDiv": lambda a, b: sympy.floor(a / b),
        "CeilDiv": lambda a, b: sympy.ceiling(a / b),
        "Rational": lambda a, b: a / b,
    }
    return sympy.sympify(rules[tree.head](*parts))


leaves = st.one_of(
    st.integers(0, 99).map(str),
    st.integers(0, 99).map(lambda n: f"Integer({n})"),
    st.sampled_from([f"Symbol('{s}', integer=True, positive=True)" for s in SYMBOLS]),
)
positive = st.one_of(st.integers(1, 9).map(lambda n: f"Integer({n})"), leaves.filter(lambda t: t.startswith("Symbol")))


def grown(inner):
    return st.one_of(
        st.tuples(st.sampled_from("+-*"), inner, inner).map(lambda t: f"({t[1]} {t[0]} {t[2]})"),
        st.tuples(st.sampled_from(["Add", "Mul", "Max", "Min"]), st.lists(inner, min_size=2, max_size=4)).map(
            lambda t: f"{t[0]}({', '.join(t[1])})"
        ),
        st.tuples(st.sampled_from(["FloorDiv", "PythonMod", "CeilDiv"]), inner, positive).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
        inner.map(lambda t: f"-({t})"),
    )


sizes = st.recursive(leaves, grown, max_leaves=8)
powers = st.tuples(sizes, st.integers(0, 3)).map(lambda t: f"Pow({t[0]}, Integer({t[1]}))")


@settings(max_examples=150, deadline=None)
@given(st.one_of(sizes, powers))
def test_an_accepted_text_is_what_pytorch_makes_of_it(text):
    expression = sympy.sympify(text, locals=LOCALS)
    numbers = {s: SYMBOLS[s.name] for s in expression.free_symbols}
    assert value(parse_size(text)) == expression.subs(numbers).doit()


words = st.sampled_from(
    [*FUNCTIONS, *ASSUMPTIONS, "Symbol", "Integer", "Float", "'s0'", "'.'", "s0", "u1", "7", "(", ")", ",", "=", "True"]
)
hostile = st.sampled_from(
    [
        "__import__",
        "lambda",
        "eval",
        "exec",
        ".x",
        "[0]",
        "os",
        "S",
        "E",
        "I",
        "L",
        "'rm'",
        ";",
        ":",
        "!",
        "\n",
        "{",
        '"',
        "x",
    ]
)
ALLOWED = {*FUNCTIONS, *ASSUMPTIONS, "Symbol", "Integer", "Rational", "Float", "precision"}
ALLOWED |= {"True", "False", "true", "false", "e"}


def is_harmless(text: str) -> bool:
    """Every word is one of the grammar's, and nothing reads an attribute, an item or an environment."""
    names = [n for n in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text) if not re.fullmatch(r"(s|u|ps|zf|zuf)[0-9]+", n)]
    return set(names) <= ALLOWED and not re.search(r"[\[\]{}:;\"!\\\n]|\.\s*[A-Za-z_]", text)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.one_of(words, hostile), max_size=14).map(" ".join)))
def test_nothing_else_is_accepted(text):
    try:
        parse_size(text)
    except Refused:
        return
    assert is_harmless(text)


@settings(max_examples=300, deadline=None)
@given(sizes, hostile, st.integers(0, 400))
def test_one_hostile_word_in_an_honest_text(text, word, place):
    """Wherever it is put in: refused, or it has become part of nothing but honest words."""
    changed = text[: place % (len(text) + 1)] + word + text[place % (len(text) + 1) :]
    try:
        parse_size(changed)
    except Refused:
        return
    assert is_harmless(changed)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "Symbol('x')",
        "Symbol('s0', cls=True)",
        "(lambda: 1)()",
        "s0.args",
        "s0[0]",
        "S.One",
        "Integer('7')",
        "2**99",
        "2**2**9",
        "2**s0",
        "LShift(Integer(1), Integer(99))",
        "Pow(Pow(Pow(Pow(Pow(9, 9), 9), 9), 9), 9)",
        "9" * 20,
        "Rational(1, 0)",
        "Float('1e99999', precision=53)",
        "s0 s1",
        "s0(1)",
        "Mod(1)",
        "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1),
        "-" * (DEEPEST + 1) + "1",
        "1" + "+1" * 5000,
        "",
        "s0 == 3",
    ],
)
def test_refused(text):
    with pytest.raises(Refused):
        parse_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['attention_mask'].size()[1] == L['input_ids'].size()[1]",
        "L['x']['a'][0].size()[1] % 8 == 0",
        "2 <= L['x'].size()[0] and not (L['y'].size()[1] > 9 or 1 == 2)",
        "Max(2, L['x'].size()[0]) * 3 <= 64",
    ],
)
def test_guards(text):
    assert parse_guard(text).head in ("==", "<=", "and")


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].sum() == 0",
        "L['x'].size()[0].__class__ == 1",
        "L['x'].size.__globals__ == 1",
        "L['a b'].size()[0] == 1",
        "L == 1",
        "L['__class__'].size()[0] == 1",
        "x.size()[0] == 1",
        "s0 == 1",
        "exit() == 1",
        "1 == 1 if 2 else 3",
        "Symbol('s0') == 1",
    ],
)
def test_refused_guards(text):
    with pytest.raises(Refused):
        parse_guard(text)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("x", True),
        ("_assert_1", True),
        ("1x", False),
        ("a b", False),
        ("for", False),
        ("__class__", False),
        ("é", False),
    ],
)
def test_names_of_values(name, good):
    assert is_identifier(name) == good
