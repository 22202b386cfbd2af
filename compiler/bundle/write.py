"""A program into its files, and the programs of one session into theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpcc.compiler.bundle.contents import GRAPH, MANIFEST, MPC, RING, SOURCE_KEY, TOKENIZER, WEIGHTS, Bundle
from mpcc.compiler.bundle.files import FOLDER_SUFFIX, SOURCE_SUFFIX, Staged, digest_of, install
from mpcc.compiler.bundle.manifest import own_digests_text, to_text
from mpcc.compiler.bundle.session import SESSION, SessionFacts, session_text
from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.text import print_graph
from mpcc.compiler.ring.text import print_ring


def save(bundle: Bundle, path: str | Path) -> None:
    """Write `prog.mpc` and `prog.mpcc/`: both or neither, and what was there before stays until both are complete.

    Raises:
        BundleError: the name, the folder or the space there is do not allow it, or parts of the program are missing,
            since it was loaded for one role only.
    """
    files = _Files.of(bundle, "")
    install(path, bundle.source, [*files.shared, *files.secret], files.closing)


def save_session(bundles: Mapping[str, Bundle], facts: SessionFacts, source: str, path: str | Path) -> None:
    """Write the programs of one session: `prog.mpcc/` holds each of them by its name, and what is said of them all.

    `prog.mpc` is the source that the session runs. BundleError as `save`.
    """
    parts = {name: _Files.of(bundle, f"{name}{FOLDER_SUFFIX}/") for name, bundle in bundles.items()}
    files = [f for part in parts.values() for f in (*part.shared, *part.secret)]
    files += [Staged(f"{name}{SOURCE_SUFFIX}", text=bundle.source) for name, bundle in bundles.items()]

    def closing(root: Path) -> list[Staged]:
        return [*(f for part in parts.values() for f in part.closing(root)), Staged(SESSION, text=session_text(facts))]

    install(path, source, files, closing)


@dataclass(frozen=True)
class _Files:
    """The files of a bundle below `prefix`: those of everybody and the client, and the provider's."""

    shared: list[Staged]
    secret: list[Staged]
    closing: Callable[[Path], list[Staged]]

    @classmethod
    def of(cls, bundle: Bundle, prefix: str) -> _Files:
        if bundle.client is None or bundle.provider is None:
            raise BundleError("a program that was loaded for one role cannot be saved", todo="copy its files instead")
        client = bundle.client
        shared: list[Staged] = [
            Staged(f"{prefix}{GRAPH}", text=print_graph(bundle.graph)),
            Staged(f"{prefix}{RING}", text=print_ring(bundle.ring)),
            Staged(f"{prefix}{MPC}", text=print_graph(bundle.mpc)),
            Staged(f"{prefix}client/{GRAPH}", text=print_graph(client.graph)),
            Staged(f"{prefix}client/{WEIGHTS}", arrays=client.tensors),
            Staged(f"{prefix}public/{WEIGHTS}", arrays=bundle.public),
        ]
        if client.tokenizer_json is not None:
            shared.append(Staged(f"{prefix}client/{TOKENIZER}", text=client.tokenizer_json))
        secret = [Staged(f"{prefix}provider/{WEIGHTS}", arrays=bundle.provider, secret=True)]

        def closing(root: Path) -> list[Staged]:
            digests = {SOURCE_KEY: hashlib.sha256(bundle.source.encode()).hexdigest()}
            digests |= {s.name.removeprefix(prefix): digest_of(root / s.name) for s in shared}
            own = {s.name.rpartition("/")[2]: digest_of(root / s.name) for s in secret}
            return [
                Staged(f"{prefix}provider/{MANIFEST}", text=own_digests_text(own), secret=True),
                Staged(f"{prefix}{MANIFEST}", text=to_text(bundle.manifest, digests)),
            ]

        return cls(shared, secret, closing)
