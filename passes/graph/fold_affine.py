"""Everything affine between two non-linearities becomes one matrix product, folded by the owner of the weights.

Given                                                Result
    y0 = layer_norm(x0, gamma0, beta0)                   n0 = rms_norm(x0) {gain}
    z  = add(linear(c, W, b), y0)                        z  = linear([c, n0], C [W | D], C(b + beta0))
    y  = layer_norm(z, gamma, beta)                      n  = rms_norm(z) {gain}
    u  = linear(y, V, d)                                 u  = linear(n, V diag(gamma) / gain, d + V beta)

D = diag(gamma0) / gain. Where a product costs by its results or its multiplications (`blocks`), D is kept in blocks
that hold few of its zeros, `linear_diagonal`, and the mean of D n0 is another product, of one output.
A residual that is no LayerNorm's result inside has no gamma: it is centred and added, and needs no product.
Where the norm comes before the products instead, the residual stream stays as it is: y = norm(x, gamma[, beta]) and
u = linear(y, V, d) become n = norm(x) and the same u of n. RMSNorm needs no centring, and has no beta.

C = I - 11'/h centres: the mean of z is zero by construction, so LayerNorm needs no mean. The gain 2^k / sqrt(h) makes
the factor sqrt(h) of the norm a power of two. New weights are graph operations on parameters, so the provider computes
them once; nothing is folded across owners (a public weight stays public). A value read by anything else than a matrix
product, a residual sum or a layout operation is materialised as n * gamma / gain + beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import MOVES_DATA
from mpcc.compiler.types import Attr, TensorType


@dataclass(frozen=True)
class Affine:
    """The value gamma * source / gain + beta, which is not computed unless somebody needs it; `beta` may be ""."""

    source: str
    gamma: str
    beta: str
    gain: float


@dataclass
class _State:
    """The graph so far. `pending` are values that are not computed yet, `made` what was made for which node."""

    graph: Graph
    builder: GraphBuilder
    blocks: bool = False
    pending: dict[str, Affine] = field(default_factory=dict)
    made: dict[tuple[str, str], str] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    centred: set[str] = field(default_factory=set)
    visibility: dict[str, str] = field(default_factory=dict)


def fold_affine(graph: Graph, blocks: bool = False) -> tuple[Graph, dict[str, torch.Tensor], dict[str, Affine]]:
    """Fold a labelled graph; visibilities have to be inferred again afterwards.

    `blocks`: products may take an operand in parts at no cost, so that diagonal matrices are kept in blocks.
    Returns the graph, new public constants, and for every LayerNorm that is no longer computed the node and the weights
    (names of nodes) that it can be recovered from.
    """
    state = _State(graph, GraphBuilder(n.name for n in graph), blocks)
    users = graph.users()
    outputs = {name for _, name in graph.outputs}
    for node in graph.nodes:
        state.visibility[node.name] = node.visibility
        computed = node.site == "mpc" and not node.is_leaf
        folded = computed and (
            _norm(state, node) or _layout(state, node) or _residual(state, node, users, outputs) or _linear(state, node)
        )
        if not folded:
            state.builder.keep(replace(node, inputs=tuple(_value(state, i) for i in node.inputs)))
    for name in outputs:
        _value(state, name)
    renamed = tuple((key, _value(state, name)) for key, name in graph.outputs)
    recovered = {name: affine for name, affine in state.pending.items() if graph[name].op == "layer_norm"}
    return without_dead_nodes(state.builder.graph(renamed)), state.constants, recovered


def _emit(state: _State, like: Node, suffix: str, op: str, inputs: tuple[str, ...], **attrs: Attr) -> str:
    """An operation named after `like`, made once for it."""
    key = (like.name, suffix)
    if key not in state.made:
        state.made[key] = state.builder.emit(f"{like.name}_{suffix}", op, inputs, attrs, origin=like.origin)
    return state.made[key]


def _value(state: _State, name: str) -> str:
    """The name of the node that computes `name`, materialised where it is pending."""
    affine = state.pending.get(name)
    if affine is None:
        return name
    like = state.graph[name]
    scaled = _emit(state, like, "scaled", "mul", (affine.source, _gamma(state, like, affine)))
    return _emit(state, like, "value", "add", (scaled, affine.beta)) if affine.beta else scaled


def _gamma(state: _State, like: Node, affine: Affine) -> str:
    """gamma / gain as a vector."""
    return (
        affine.gamma
        if affine.gain == 1.0
        else _emit(state, like, "gain", "scale", (affine.gamma,), factor=1.0 / affine.gain)
    )


def _norm(state: _State, node: Node) -> bool:
    """A norm -> the norm alone; its affine part is left pending."""
    x, *vectors = node.inputs
    known = node.op == "layer_norm" or (node.op == "rms_norm" and node.attr("gain") == 1.0)
    if not known or not vectors or len(node.type.shape) < 2:
        return False
    if any(state.graph[w].visibility == "secret" for w in vectors):
        return False
    eps = node.attr("eps")
    if node.op == "rms_norm" or x in state.centred:
        width = node.type.shape[-1]
        gain = 2.0 ** round(math.log2(math.sqrt(width))) / math.sqrt(width)
        source = _emit(state, node, "norm", "rms_norm", (_value(state, x),), eps=eps, gain=gain)
    else:
        gain = 1.0
        source = _emit(state, node, "norm", "layer_norm", (_value(state, x),), eps=eps, affine="none")
    state.pending[node.name] = Affine(source, vectors[0], vectors[1] if len(vectors) > 1 else "", gain)
    return True


def _layout(state: _State, node: Node) -> bool:
    """Layout of a pending value that leaves its last dimension alone: the source is moved, the rest stays pending."""
    affine = state.pending.get(node.inputs[0]) if node.op in MOVES_DATA and len(node.inputs) == 1 else None
    if affine is None or not _keeps_last(state.graph[node.inputs[0]].type, node):
        return False
    moved = _emit(state, node, "moved", node.op, (affine.source,), **dict(node.attrs))
    state.pending[node.name] = replace(affine, source=moved)
    return True


def _keeps_last(before: TensorType, node: Node) -> bool:
    shape, rank = node.type.shape, len(before.shape)
    if not shape or shape[-1] != before.shape[-1]:
        return False
    if node.op == "slice":
        return node.attr("dim") != rank - 1
    if node.op == "permute":
        dims = node.attr("dims")
        return isinstance(dims, tuple) and dims[-1] == rank - 1
    return True


def _linear(state: _State, node: Node) -> bool:
    """A product with a pending operand takes its affine part into the weight."""
    affine = state.pending.get(node.inputs[0]) if node.op == "linear" else None
    if affine is None or not _same_owner(state, (*node.inputs[1:], *_vectors(affine))):
        return False
    weights = _with_affine(state, node, affine, node.inputs[1], node.inputs[2:])
    state.builder.keep(replace(node, inputs=(affine.source, *weights)))
    return True


def _vectors(affine: Affine | None) -> tuple[str, ...]:
    return tuple(v for v in (affine.gamma, affine.beta) if v) if affine else ()


def _with_affine(state: _State, like: Node, affine: Affine, weight: str, bias: tuple[str, ...]) -> tuple[str, ...]:
    """(W diag(gamma) / gain, b + W beta), the second where there is a b or a beta."""
    gamma = _emit(state, like, "gain", "scale", (affine.gamma,), factor=1.0 / affine.gain)
    folded = _emit(state, like, "weight", "mul", (weight, gamma))
    if not affine.beta:
        return (folded, *bias)
    width = state.builder.type(affine.beta).shape[0]
    column = _emit(state, like, "column", "reshape", (affine.beta,), shape=(width, 1))
    product = _emit(state, like, "shifted", "matmul", (weight, column))
    offset = _emit(state, like, "offset", "reshape", (product,), shape=(state.builder.type(weight).shape[0],))
    return folded, _emit(state, like, "bias", "add", (bias[0], offset)) if bias else offset


def _same_owner(state: _State, names: tuple[str, ...]) -> bool:
    """Folding must not make a public matrix private: either the first weight is private already, or all are public."""
    visibilities = [state.visibility.get(n, "provider") for n in names]
    return visibilities[0] == "provider" or all(v == "public" for v in visibilities)


def _residual(state: _State, node: Node, users: dict[str, list[str]], outputs: set[str]) -> bool:
    """add(linear(u), r) that only a LayerNorm reads: one centred product over [u, r]."""
    if node.op != "add" or node.name in outputs or [state.graph[u].op for u in users[node.name]] != ["layer_norm"]:
        return False
    for product, rest in (node.inputs, node.inputs[::-1]):
        linear = state.graph[product]
        alone = linear.op == "linear" and users[product] == [node.name] and product not in outputs
        if alone and state.graph[rest].type == node.type == linear.type and len(node.type.shape) >= 2:
            affine = state.pending.get(rest)
            affine = affine if affine and affine.beta else None  # without a shift it is a residual like others
            owners = (*linear.inputs[1:], *_vectors(affine))
            if _same_owner(state, owners) and state.visibility[linear.inputs[1]] == "provider":
                _fuse(state, node, linear, rest, affine)
                return True
    return False


def _fuse(state: _State, node: Node, linear: Node, rest: str, affine: Affine | None) -> None:
    u, weight, *bias = state.builder.remove(linear.name).inputs
    if affine is None:
        _add_centred(state, node, [u, weight, *bias], _value(state, rest))
        return
    bias = [_emit(state, node, "beta", "add", (bias[0], affine.beta))] if bias else [affine.beta]
    if state.blocks:
        _add_scaled(state, node, (u, weight, bias[0]), affine)
        return
    width = node.type.shape[-1]
    row = _emit(state, node, "row", "reshape", (_gamma(state, node, affine),), shape=(1, width))
    square = _emit(state, node, "diagonal", "mul", (_eye(state, width), row))
    wide = _emit(state, node, "wide", "concat", (weight, square), dim=1)
    inputs = [
        _emit(state, node, "both", "concat", (u, affine.source), dim=len(node.type.shape) - 1),
        _centred(state, node, wide, "weight"),
        _centred(state, node, bias[0], "bias"),
    ]
    state.builder.keep(replace(node, op="linear", inputs=tuple(inputs), attrs=()))
    state.centred.add(node.name)


def _add_scaled(state: _State, node: Node, linear: tuple[str, str, str], affine: Affine) -> None:
    """C W u + C b + D n0 - mean of D n0, with D in blocks."""
    u, weight, bias = linear
    width = node.type.shape[-1]
    block = width // _parts(width)
    gamma = _gamma(state, node, affine)
    column = _emit(state, node, "column", "reshape", (gamma,), shape=(width, 1))
    diagonal = _emit(state, node, "diagonal", "mul", (_tiles(state, width, block), column))
    weight = _emit(state, node, "wide", "concat", (_centred(state, node, weight, "weight"), diagonal), dim=1)
    inputs = (u, affine.source, weight, _centred(state, node, bias, "bias"))
    total = _emit(state, node, "product", "linear_diagonal", inputs, block=block)
    row = _emit(state, node, "row", "reshape", (gamma,), shape=(1, width))
    row = _emit(state, node, "row_share", "scale", (row,), factor=1.0 / width)
    mean = _emit(state, node, "residual_mean", "linear", (affine.source, row))
    state.builder.keep(replace(node, op="sub", inputs=(total, mean), attrs=()))
    state.centred.add(node.name)


def _parts(width: int) -> int:
    """Blocks of a diagonal matrix: the more, the fewer zeros, but every block is a product of its own."""
    return next(n for n in (8, 6, 4, 3, 2, 1) if width % n == 0)


def _add_centred(state: _State, node: Node, linear: list[str], rest: str) -> None:
    """A residual without gamma needs no product: C W u + C b + (r - mean of r)."""
    u, weight, *bias = linear
    inputs = (u, _centred(state, node, weight, "weight"), *(_centred(state, node, b, "bias") for b in bias))
    product = _emit(state, node, "product", "linear", inputs)
    last = len(node.type.shape) - 1
    mean = _emit(state, node, "residual_mean", "mean", (rest,), dims=(last,), keepdim=True)
    centred = _emit(state, node, "residual_centred", "sub", (rest, mean))
    state.builder.keep(replace(node, op="add", inputs=(product, centred), attrs=()))
    state.centred.add(node.name)


def _centred(state: _State, node: Node, name: str, what: str) -> str:
    """Subtract the mean over the output dimension."""
    mean = _emit(state, node, f"{what}_mean", "mean", (name,), dims=(0,), keepdim=True)
    return _emit(state, node, f"{what}_centred", "sub", (name, mean))


def _eye(state: _State, width: int) -> str:
    return _constant(state, f"identity_{width}", torch.eye(width))


def _tiles(state: _State, width: int, block: int) -> str:
    """Identity matrices below each other, [width, block]."""
    return _constant(state, f"identities_{width}_{block}", torch.eye(block).repeat(width // block, 1))


def _constant(state: _State, name: str, value: torch.Tensor) -> str:
    """A public constant, made once; its tensor has the name of its node."""
    key = (name, "")
    if key not in state.made:
        node = state.builder.unused(name)
        type = TensorType(tuple(value.shape))
        state.made[key] = state.builder.leaf(node, "constant", type, {"tensor": node})
        state.constants[node], state.visibility[node] = value, "public"
    return state.made[key]
