"""A compiled program and its file form: `prog.mpc` and, beside it, `prog.mpcc/`.

    prog.mpc                        MP-SPDZ source; no weight, no name from the model
    prog.mpcc/manifest.json         what everybody may know, and the digest of every file but the provider's
              graph.ir  ring.ir     the program in both IRs; no calibrated range that is finer than a power of two
              mpc.ir                what is computed inside MPC, on the weights as they are provisioned (for `verify`)
              public/               weights.safetensors: public weights that the program uses inside MPC
              client/               graph.ir, weights.safetensors: what the client computes in clear; tokenizer.json
              provider/             weights.safetensors, manifest.json (its digest); for the provider's eyes only

Client and provider need the shared files and their own folder; the helper gets less: HELPER_FILES, and a manifest that
is `reduced`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mpcc.compiler.bundle.manifest import Manifest
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph

ROLES = ("client", "provider")
MANIFEST, GRAPH, RING, MPC = "manifest.json", "graph.ir", "ring.ir", "mpc.ir"
WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer.json"
SOURCE_KEY = "source"  # the source's entry among the digests: it may be renamed together with its folder
# the files that the manifest has digests of; those in the client's folder are not everywhere
SHARED_FILES = frozenset({GRAPH, RING, MPC, f"public/{WEIGHTS}"})
HELPER_FILES = frozenset({RING, MPC, f"public/{WEIGHTS}"})
CLIENT_FILES = frozenset({f"client/{GRAPH}", f"client/{WEIGHTS}"})
OPTIONAL_FILES = frozenset({f"client/{TOKENIZER}"})

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ClientPart:
    """What the client computes in clear before the run: its graph, the public weights in it, and its tokenizer."""

    graph: Graph
    tensors: Arrays
    tokenizer_json: str | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A compiled program; `client` and `provider` are None where that role's folder is not here.

    `graph` is the model's, labelled; `mpc` the part of it that is computed inside MPC, which `ring` approximates. The
    helper has no other graph than `mpc`.
    Weights are arrays of f32, f64, i64, i32 or bool by name.
    """

    manifest: Manifest
    source: str
    graph: Graph
    ring: RingGraph
    public: Arrays
    client: ClientPart | None
    provider: Arrays | None
    mpc: Graph
