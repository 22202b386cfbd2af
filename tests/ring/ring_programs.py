"""Small ring programs that several tests use."""

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph, RingOrigin, RingType
from mpcc.compiler.types import attributes


def outputs(builder, **values):
    return builder.graph([(name, builder.reveal(value, name)) for name, value in values.items()])


def unary(function, shape=(4,), frac_bits=8, bound=100.0, **options):
    """y = function(builder, x) for one secret input x."""
    b = Builder(**options)
    b.origin = RingOrigin("node_0", "encoder.layer.0", "gelu")
    return outputs(b, y=function(b, b.input("x", shape, frac_bits, bound, "client")))


def loop(count=3, final=True):
    """x <- trunc(x @ W_i) + c, `count` times."""
    inner = Builder(prefix="b")
    inner.origin = RingOrigin("linear", "encoder.layer.{i}", "linear")
    carried = RingType((2, 2), 16, 1000.0)
    x, c = inner.arg("carried", 0, carried), inner.arg("invariant", 0, RingType((2, 2), 16, 1.0))
    w = inner.param(tuple(f"w{i}" for i in range(count)), (2, 2), 16, 4.0, public=False)
    product = inner.matmul(x, w, bound=900.0)
    product = inner.trunc(product, 16) if final else inner.rescale(product, 16)
    result = inner.mark_result(inner.add(product, c), "linear")
    outer = Builder()
    x0, c0 = outer.input("x", (2, 2), 16, 10.0, "client"), outer.const(0.5, (2, 2), 16)
    taken = outer.repeat([x0], [c0], inner.graph([("x", result)]), count)
    return outputs(outer, y=taken[0])


def replace_node(graph, name, **changes):
    """`graph` with fields (or, with attrs=dict, attributes) of one node changed."""
    from dataclasses import replace

    nodes = []
    for node in graph.nodes:
        if node.name == name:
            if "attrs" in changes:
                changes = {**changes, "attrs": attributes(**dict(node.attrs) | changes["attrs"])}
            node = replace(node, **changes)
        nodes.append(node)
    return RingGraph(tuple(nodes), graph.outputs, graph.ring_bits)
