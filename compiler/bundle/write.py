"""A program into its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mpcc.compiler.bundle.contents import GRAPH, MANIFEST, MPC, RING, SOURCE_KEY, TOKENIZER, WEIGHTS, Bundle
from mpcc.compiler.bundle.files import Staged, digest_of, install
from mpcc.compiler.bundle.manifest import own_digests_text, to_text
from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.text import print_graph
from mpcc.compiler.ring.text import print_ring


def save(bundle: Bundle, path: str | Path) -> None:
    """Write `prog.mpc` and `prog.mpcc/`: both or neither, and what was there before stays until both are complete.

    Raises:
        BundleError: the name, the folder or the space there is do not allow it, or parts of the program are missing,
            since it was loaded for one role only.
    """
    if bundle.client is None or bundle.provider is None:
        raise BundleError("a program that was loaded for one role cannot be saved", todo="copy its files instead")
    client = bundle.client
    shared: list[Staged] = [
        Staged(GRAPH, text=print_graph(bundle.graph)),
        Staged(RING, text=print_ring(bundle.ring)),
        Staged(MPC, text=print_graph(bundle.mpc)),
        Staged(f"client/{GRAPH}", text=print_graph(client.graph)),
        Staged(f"client/{WEIGHTS}", arrays=client.tensors),
        Staged(f"public/{WEIGHTS}", arrays=bundle.public),
    ]
    if client.tokenizer_json is not None:
        shared.append(Staged(f"client/{TOKENIZER}", text=client.tokenizer_json))
    secret = [Staged(f"provider/{WEIGHTS}", arrays=bundle.provider, secret=True)]

    def closing(root: Path) -> list[Staged]:
        digests = {SOURCE_KEY: hashlib.sha256(bundle.source.encode()).hexdigest()}
        digests |= {s.name: digest_of(root / s.name) for s in shared}
        own = {s.name.partition("/")[2]: digest_of(root / s.name) for s in secret}
        return [
            Staged(f"provider/{MANIFEST}", text=own_digests_text(own), secret=True),
            Staged(MANIFEST, text=to_text(bundle.manifest, digests)),
        ]

    install(path, bundle.source, [*shared, *secret], closing)
