"""How large a received program may be: whatever is larger is refused before anything of it is run.

Each limit is far above the programs there are, so that no honest one meets it: LLaMA-70B on 4096 tokens has values of
2^28 elements, computes 2^48 products, and its texts have ten million bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph, RingNode

LARGEST_IR = 2**26  # bytes of a text of an IR, which takes some ten times as much memory when it is read
LARGEST_TEXT = 2**26  # bytes of the manifest, the source or the tokenizer
LARGEST_VALUE = 2**32  # elements of one value
MOST_RUNS = 2**20  # operations, those in loops once for each round
MOST_WORK = 2**50  # products and elements, of all operations together
MOST_MATRICES = 2**17  # products of matrices, which are one line each in the source of MP-SPDZ
DEEPEST_LOOP = 4  # loops within loops
MOST_COPIES = 256  # how often a weight may stand in a stream, on average: layers may share weights

REFUSE = "do not run this program"


def check_ring_size(ring: RingGraph, where: str) -> None:
    """Whether a verified ring program is within the limits.

    Raises:
        BundleError: which limit it passes.
    """
    runs = work = matrices = 0
    for graph, node, times, depth in _walked(ring, 1, 0):
        _refuse(depth > DEEPEST_LOOP, f"it has loops {depth} deep, {DEEPEST_LOOP} are allowed", where)
        _refuse(depth > 1 and node.op == "param", f"{node.name} is a weight in a loop within a loop", where)
        _check_shape(node.name, node.type.shape, where)
        runs, work = runs + times, work + times * _work(graph, node)
        matrices += math.prod(node.type.shape[:-2]) if node.op == "matmul" else 0
    _refuse(runs > MOST_RUNS, f"its loops run {runs} operations, {MOST_RUNS} are allowed", where)
    _refuse(work > MOST_WORK, f"it computes {work:.1e} products, {float(MOST_WORK):.1e} are allowed", where)
    _refuse(matrices > MOST_MATRICES, f"it multiplies {matrices} pairs of matrices, not {MOST_MATRICES}", where)
    params = [n.name for _, n, _, _ in _walked(ring, 1, 0) if n.op == "param"]
    _refuse(len(set(params)) < len(params), "two of its weights have one name", where)


def check_graph_size(graph: Graph, where: str) -> None:
    """Whether a graph, which need not be verified yet, is within the limits. BundleError as above."""
    runs = _graph_runs(graph, where, 0)
    _refuse(runs > MOST_RUNS, f"its loops run {runs} operations, {MOST_RUNS} are allowed", where)


def _graph_runs(graph: Graph, where: str, depth: int) -> int:
    _refuse(depth > DEEPEST_LOOP, f"it has loops {depth} deep, {DEEPEST_LOOP} are allowed", where)
    runs = 0
    for node in graph:
        _check_shape(node.name, node.type.shape, where, least=0)
        runs += 1
        if node.body is not None:
            count = node.attr("count")
            _refuse(type(count) is not int or count < 1, f"{node.name} is a loop without a number of rounds", where)
            runs += int(str(count)) * _graph_runs(node.body, where, depth + 1)
    return runs


def _walked(ring: RingGraph, times: int, depth: int) -> Iterator[tuple[RingGraph, RingNode, int, int]]:
    """Every graph and node with the number of times it runs, and how many loops it stands in."""
    for node in ring:
        yield ring, node, times, depth
        if node.body is not None:
            yield from _walked(node.body, times * node.int_attr("count"), depth + 1)


def _work(graph: RingGraph, node: RingNode) -> int:
    """Products of one run; of what multiplies nothing, elements."""
    products = node.op in ("dot", "matmul", "block_matmul")
    return node.type.elements * (graph[node.inputs[0]].type.shape[-1] if products else 1)


def _check_shape(name: str, shape: tuple[int, ...], where: str, least: int = 1) -> None:
    if math.prod(shape) > LARGEST_VALUE or any(size < least for size in shape):
        raise BundleError(f"{name[:60]} has a size that no program has", where=where, todo=REFUSE)


def _refuse(passed: bool, what: str, where: str) -> None:
    if passed:
        raise BundleError(f"the program is too large: {what}", where=where, todo=REFUSE)
