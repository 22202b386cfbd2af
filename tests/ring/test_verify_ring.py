"""The verifier accepts what the builder makes, and every rule rejects what breaks it."""

from dataclasses import replace

import pytest
from ring_programs import loop, replace_node, unary

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph, RingNode, RingOrigin, RingType
from mpcc.compiler.ring.text import parse_ring, print_ring
from mpcc.compiler.ring.verify import verify
from mpcc.compiler.types import attributes

HEAD = 'ring 64\nx = input() {name="x", role="client"} : share[2,4] q8 <=8.0 @ "n" "encoder.{i}" "gelu"\n'
SHARE = ": share[2,4] q8 <=8.0"


def everything():
    """A program with every primitive except rescale."""

    def body(b, x):
        w = b.param(("w",), (4, 4), 8, 1.0, public=False)
        h = b.trunc(b.matmul(x, w), 8)
        h = b.select(b.lt_zero(h), b.neg(h), b.add_const(h, 1.0))
        h = b.trunc(b.mul(h, b.concat([b.slice(h, 1, 0, 2), b.slice(h, 1, 2, 4)], 1)), 8, "nearest")
        h = b.sub(h, b.permute(b.permute(h, (1, 0)), (1, 0)))
        return b.add(b.sum(h, 1), b.trunc(b.dot(h, h), 8, "local"))

    return unary(body, (2, 4))


def test_the_builder_makes_valid_programs():
    verify(everything(), final=True)
    verify(loop(), final=True)
    verify(loop(final=False))


# each case: the rule's name, nodes after the input x, part of the message
BROKEN = {
    "unknown operation": (f"y = relu(x) {SHARE}", "unknown operation"),
    "names are unique": (f"x = add(x, x) {SHARE}", "of this name exists"),
    "defined before use": (f"y = add(x, z) {SHARE}", "z is not defined"),
    "number of operands": (f"y = add(x) {SHARE}", "1 operands, not 2"),
    "attributes are there": (f"y = mul_const(x) {SHARE}", "attribute shift"),
    "no body": ("y = add(x, x) : share[2,4] q8 <=16.0 { return }", "has a body"),
    "shape": ("y = add(x, x) : share[2,3] q8 <=16.0", r"shape is \[2, 3\], the rule gives \[2, 4\]"),
    "frac_bits": ("y = add(x, x) : share[2,4] q9 <=16.0", "frac_bits is 9, the rule gives 8"),
    "publicity": ("y = add(x, x) : public[2,4] q8 <=16.0", "public is True, the rule gives False"),
    "bound": ("y = add(x, x) : share[2,4] q8 <=17.0", "bound 17 is above 16"),
    "negative bound": ("y = add(x, x) : share[2,4] q8 <=-1.0", "is not a magnitude"),
    "ring": ("y = mul_const(x) {shift=0, value=2000000000000000000} : share[2,4] q8 <=1.6e19", "does not fit the 64"),
    "input role": ('y = input() {name="y", role="public"} ' + SHARE, "public is False"),
    "input name": ('y = input() {name="", role="client"} ' + SHARE, "has no name"),
    "param": ('y = param() {tensors=("a", "b")} ' + SHARE, "names 2 tensors for 1 iterations"),
    "const bound": ("y = const() {value=256} : public[2,4] q8 <=0.5", "below the constant"),
    "const public": ("y = const() {value=256} : share[2,4] q8 <=1.0", "public is False"),
    "arg": ('y = arg() {index=0, kind="carried"} ' + SHARE, "outside a loop"),
    "add scales": (
        "y = mul_const(x) {shift=1, value=1} : share[2,4] q9 <=4.0\nz = add(x, y) : share[2,4] q8 <=12.0",
        "operands have 8 and 9 fractional bits",
    ),
    "mul_const": ("y = mul_const(x) {shift=2, value=3} : share[2,4] q8 <=6.0", "the rule gives 10"),
    "sum": ("y = sum(x) {dim=2} : share[2,4] q8 <=8.0", "dimension 2 of a value of rank 2"),
    "layout": ('y = layout(x) {kind="flip"} ' + SHARE, "unknown layout 'flip'"),
    "layout operands": ('y = layout(x, x) {kind="reshape", shape=(2, 4)} ' + SHARE, "2 operands, not 1"),
    "reshape": ('y = layout(x) {kind="reshape", shape=(9,)} : share[9] q8 <=8.0', "8 elements do not fill"),
    "permute": ('y = layout(x) {dims=(0, 0), kind="permute"} : share[2,2] q8 <=8.0', "no order of the dimensions"),
    "slice": ('y = layout(x) {dim=1, kind="slice", start=2, step=1, stop=5} : share[2,3] q8 <=8.0', "of size 4"),
    "slice step": ('y = layout(x) {dim=1, kind="slice", start=2, step=0, stop=5} : share[2,3] q8 <=8.0', "step is 0"),
    "empty slice": ('y = layout(x) {dim=1, kind="slice", start=2, step=1, stop=2} : share[2,0] q8 <=8.0', "nothing"),
    "expand": ('y = layout(x) {kind="expand", shape=(4, 4)} : share[4,4] q8 <=8.0', "does not expand"),
    "concat": (
        'y = sum(x) {dim=1} : share[2,1] q8 <=32.0\nz = layout(x, y) {dim=0, kind="concat"} : share[4,4] q8 <=32.0',
        "differ in another dimension",
    ),
    "mul": ("y = sum(x) {dim=1} : share[2,1] q8 <=32.0\nz = mul(x, y) : share[2,4] q16 <=256.0", "have shapes"),
    "dot": ("y = dot(x, x) : share[2,1] q16 <=64.0", None),
    "dot bound": ("y = dot(x, x) : share[2,1] q16 <=257.0", "above 256"),
    "matmul": ("y = matmul(x, x) : share[2,4] q16 <=256.0", "have shapes"),
    "block_matmul": ("y = block_matmul(x, x) {block=2} : share[2,4] q16 <=256.0", "in blocks of 2"),
    "trunc bits": ('y = trunc(x) {bits=0, variant="safe", width=63} ' + SHARE, "truncates by 0 bits"),
    "trunc variant": (
        'y = trunc(x) {bits=1, variant="fast", width=63} : share[2,4] q7 <=8.0',
        "unknown variant 'fast'",
    ),
    "trunc scale": ('y = trunc(x) {bits=4, variant="safe", width=63} : share[2,4] q8 <=8.0', "the rule gives 4"),
    "trunc without width": (
        'y = trunc(x) {bits=1, variant="safe"} : share[2,4] q7 <=8.0',
        "attribute width is missing",
    ),
    "width of safe": (
        'y = trunc(x) {bits=1, variant="safe", width=48} : share[2,4] q7 <=8.0',
        "width 48 does not select the safe form, 63 does",
    ),
    "width of local": (
        'y = trunc(x) {bits=1, variant="local", width=63} : share[2,4] q7 <=8.0',
        "width 63 does not select the local form, 48 does",
    ),
    "local bits": (
        'y = trunc(x) {bits=48, variant="local", width=48} : share[2,4] q-40 <=8.0',
        "width 48 leaves nothing",
    ),
    "width of nearest": (
        'y = trunc(x) {bits=1, variant="nearest", width=12} : share[2,4] q7 <=8.0',
        "width 12 does not hold 12 bits and a sign",
    ),
    "unknown attribute": ("y = add(x, x) {scale=2} : share[2,4] q8 <=16.0", "unknown attribute scale"),
    "attribute of another layout": (
        'y = layout(x) {dim=0, kind="reshape", shape=(8,)} : share[8] q8 <=8.0',
        "unknown attribute dim",
    ),
    "kind of attribute": ('y = sum(x) {dim="0"} : share[1,4] q8 <=16.0', "attribute dim is '0', not of kind int"),
    "kind of elements": ('y = layout(x) {kind="reshape", shape=(8, "1")} : share[8,1] q8 <=8.0', "not of kind ints"),
    "lt bits": ("y = lt(x) {bits=11} : share[2,4] q0 <=1.0", "11 bits are too few"),
    "lt ring": ("y = lt(x) {bits=64} : share[2,4] q0 <=1.0", "compares 64 bits"),
    "select condition": ("y = select(x, x, x) : share[2,4] q8 <=8.0", "not a bit"),
    "select shape": (
        "s = sum(x) {dim=0} : share[1,4] q8 <=16.0\nc = lt(s) {bits=14} : share[1,4] q0 <=1.0\n"
        "y = select(c, x, x) : share[2,4] q8 <=8.0",
        "have shapes",
    ),
    "reveal": ('y = reveal(x) {name="", to="client"} ' + SHARE, "no name or no receiver"),
    "take": ("y = take(x) {index=0} " + SHARE, "x is input, not a loop"),
}


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN.keys())
def test_rule(text, message):
    graph = parse_ring(HEAD + text + "\nreturn")
    if message is None:
        verify(graph)
    else:
        with pytest.raises(InternalError, match=message):
            verify(graph)


LOOP = """ring 64
x = input() {name="x", role="client"} : share[2] q8 <=8.0
c = input() {name="c", role="public"} : public[2] q8 <=8.0
r = repeat(x, c) {carried=1, count=2} : share[] q0 <=0.0 {
  a = arg() {index=0, kind="carried"} : share[2] q8 <=8.0
  i = arg() {index=0, kind="invariant"} : public[2] q8 <=8.0
  w = param() {tensors=("w0", "w1")} : share[2] q8 <=1.0
  t = add(a, w) : share[2] q8 <=9.0
  return "a"=t
}
t = take(r) {index=0} : share[2] q8 <=9.0
y = reveal(t) {name="y", to="client"} : share[2] q8 <=9.0
return "y"=y
"""
LOOP_RULES = {
    "iterations": ("count=2", "count=0", "runs no iteration"),
    "carried": ("carried=1", "carried=3", "carries 3 of 2"),
    "outputs": ('return "a"=t\n', "return\n", "returns 0 values, 1 are carried"),
    "undefined output": ('"a"=t', '"a"=q', "returns q, which does not exist"),
    "carried shape": ('"a"=t', '"a"=s', "carried value 0 enters as"),
    "carried scale": ('"a"=t', '"a"=m', "carried value 0 enters as"),
    "argument scale": ('kind="carried"} : share[2] q8', 'kind="carried"} : share[2] q9', "frac_bits is 9"),
    "argument shape": ('kind="carried"} : share[2] q8', 'kind="carried"} : share[3] q8', r"shape is \[3\]"),
    "argument index": ('{index=0, kind="invariant"}', '{index=1, kind="invariant"}', "no invariant argument 1"),
    "argument kind": ('kind="invariant"', 'kind="stacked"', "unknown kind 'stacked'"),
    "public carried": ('kind="carried"} : share', 'kind="carried"} : public', "carried values are shared"),
    "tensors": ('("w0", "w1")', '("w0",)', "names 1 tensors for 2 iterations"),
    "index of take": ("take(r) {index=0}", "take(r) {index=1}", "carries no value 1"),
    "type of take": ("take(r) {index=0} : share[2] q8", "take(r) {index=0} : share[2] q9", "frac_bits is 9"),
    "loop as operand": ("reveal(t)", "reveal(r)", "other than by take"),
    "reveal in a loop": ("t = add(a, w)", 't = reveal(a) {name="z", to="client"}', "a reveal inside a loop"),
    "input in a loop": ('param() {tensors=("w0", "w1")}', 'input() {name="w", role="client"}', "outside loops"),
    "outputs are revealed": ('return "y"=y', 'return "y"=t', "only a reveal may leave"),
    "outputs exist": ('return "y"=y', 'return "y"=z', "reads z, which does not exist"),
}


@pytest.mark.parametrize("old, new, message", LOOP_RULES.values(), ids=LOOP_RULES.keys())
def test_loop_rule(old, new, message):
    extra = '  s = sum(a) {dim=0} : share[1] q8 <=16.0\n  m = mul(a, a) : share[2] q16 <=64.0\n  return "a"'
    text = LOOP.replace('  return "a"', extra)
    verify(parse_ring(text))
    assert old in text
    with pytest.raises(InternalError, match=message):
        verify(parse_ring(text.replace(old, new)))


def test_message_has_position_name_operation_and_layer():
    graph = unary(lambda b, v: b.add(v, v))
    broken = replace_node(graph, "r1", type=replace(graph["r1"].type, frac_bits=9))
    with pytest.raises(InternalError, match=r"ring node 1: r1 = add at encoder\.layer\.0: frac_bits"):
        verify(broken)


def test_a_body_is_verified_too():
    graph = loop()
    (repeat,) = (n for n in graph if n.op == "repeat")
    body = repeat.body
    assert body is not None
    bad = replace_node(body, "b3", type=replace(body["b3"].type, bound=1e9))
    with pytest.raises(InternalError, match=r"b3 = matmul at encoder\.layer\.\{i\}: bound"):
        verify(replace_node(graph, repeat.name, body=bad))


# ** what has been verified before **
def test_known_nodes_are_verified_where_an_operand_changed():
    """t reads a argument that has become wider: t itself is the same object and wrong now."""
    graph = loop()
    wider = replace(graph["r0"].type, bound=1e9)
    with pytest.raises(InternalError, match="r2 = repeat"):
        other = replace_node(graph, "r2", attrs={"count": 0})
        verify(other, known=graph)
    (name,) = (n.name for n in everything() if n.op == "sum")
    whole = everything()
    broken = replace_node(whole, whole[name].inputs[0], type=replace(whole[whole[name].inputs[0]].type, bound=0.0))
    with pytest.raises(InternalError, match=f"{name} = sum"):
        verify(broken, known=whole)
    verify(replace_node(graph, "r0", type=wider), known=graph)


def test_known_bodies_are_verified_where_the_loop_is_given_something_else():
    graph = parse_ring(LOOP)
    verify(graph)
    other = replace_node(graph, "c", type=replace(graph["c"].type, public=False), attrs={"role": "client"})
    assert other["r"] is graph["r"]
    with pytest.raises(InternalError, match="i = arg at the model: is public, but what the loop is given is not"):
        verify(other, known=graph)


def test_known_programs_may_not_be_final():
    graph = loop(final=False)
    with pytest.raises(InternalError, match="a rescale is left"):
        verify(graph, final=True, known=graph)


def test_rescale_is_allowed_only_before_the_truncation_pass():
    with pytest.raises(InternalError, match="a rescale is left"):
        verify(loop(final=False), final=True)


def test_body_of_another_ring():
    graph = loop()
    (repeat,) = (n for n in graph if n.op == "repeat")
    assert repeat.body is not None
    body = RingGraph(repeat.body.nodes, repeat.body.outputs, 72)
    with pytest.raises(InternalError, match="72-bit ring"):
        verify(replace_node(graph, repeat.name, body=body))


# ** text **
@pytest.mark.parametrize("graph", [everything(), loop(), loop(final=False)])
def test_text_round_trip(graph):
    text = print_ring(graph)
    assert parse_ring(text) == graph
    assert print_ring(parse_ring(text)) == text


def test_text_keeps_odd_values():
    b = Builder()
    b.origin = RingOrigin('a "quoted"\n name', "läyer.{i}", "x -> y {")
    type = RingType((), -3, 0.1 + 0.2)
    odd = attributes(name="ä\\", role="client", f=1e-300, t=(), n=(1, ("a", None, True), -2.5e10), i=-7)
    x = RingNode("r0", "input", (), odd, type, b.origin)
    b.nodes.append(x)
    graph = b.graph([("out put", b.mark_result(x, "g\t1"))])
    assert parse_ring(print_ring(graph)) == graph
    body = parse_ring(LOOP)
    assert parse_ring(print_ring(body)) == body


def test_text_is_readable():
    assert print_ring(parse_ring(LOOP)) == LOOP


@pytest.mark.parametrize(
    "text, message",
    [
        ("rings 64\nreturn", "line 1: expected 'ring'"),
        ("ring 64\nx = add(y, z : share[2] q8 <=1.0\nreturn", "line 2: expected a name"),
        ("ring 64\nx = add() : secret[2] q8 <=1.0\nreturn", "line 2: expected share or public"),
        ("ring 64\nx = add() : share[2] q8 <=1.0", "line 2: expected a name"),
        ("ring 64\nreturn\nreturn", "line 3: more text"),
        ("ring 64\nx = $", "line 2: cannot read"),
        ("ring 6.5\nreturn", "expected an integer"),
        ("ring 64\nx = add() {a=} : share[2] q8 <=1.0", "expected a number"),
    ],
)
def test_malformed_text(text, message):
    with pytest.raises(InternalError, match=message):
        parse_ring(text)
