"""What a bundle says about itself: `manifest.json`, which every role may read.

It holds shapes, names, evidence and digests, never the value of a weight or a digest of private ones: a digest of a
secret would let others test their guesses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from mpcc.compiler.bundle.decode import Malformed, decoded
from mpcc.compiler.cost import Network
from mpcc.compiler.errors import BundleError
from mpcc.compiler.findings import Alternative, Applied, Evidence, LowRank, PublicNumber, Saving

FORMAT, FORMAT_VERSION = "mpcc-bundle", 1
MASK_INPUT, IDS_INPUT, TYPES_INPUT = "attention_mask", "input_ids", "token_type_ids"
COPY_AGAIN = "copy it again, or compile again"


@dataclass(frozen=True)
class InputSpec:
    """An input of the program: `highest` is the largest valid id where a table look-up tells it, `pad` fills up ids."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = "client"
    highest: int | None = None
    pad: int = 0


@dataclass(frozen=True)
class OutputSpec:
    """An output: computed in MPC and revealed to the client, or (`clear`, `frac_bits` 0) by the client itself.

    One that is `whole` holds whole numbers: the positions of the largest logits.
    """

    name: str
    shape: tuple[int, ...]
    frac_bits: int
    clear: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Placed:
    """A weight in the stream of its owner: `elements` ring elements from `position` on."""

    tensor: str
    frac_bits: int
    position: int
    elements: int


@dataclass(frozen=True)
class Manifest:
    """Everything about a program that is public; see the fields' names.

    The helper's is `reduced` to what it needs to take part and to compare the program's digest with the others.
    """

    mpcc: str
    protocol: str
    network: Network  # what it was compiled for
    ring_bits: int
    frac_bits: int
    weight_frac_bits: int
    truncation: str
    output: str
    architecture: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    client_order: tuple[str, ...]
    private_weights: tuple[Placed, ...]
    public_weights: tuple[Placed, ...]
    evidence: tuple[Evidence, ...]
    approximations: tuple[Applied, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    profile: str = "safe"
    local_truncations: int = 0  # elements per inference
    failure_probability: float = 0.0  # of all local truncations of an inference together, a power of two
    low_rank: tuple[LowRank, ...] = ()
    alternatives: tuple[Alternative, ...] = ()  # forms of the program that were considered; empty: none but this one
    savings: tuple[Saving, ...] = ()  # what each pass saves; empty unless asked for
    numbers: tuple[PublicNumber, ...] = ()  # in the code of the model
    output_frac_bits: int | None = None  # to which what is revealed was rounded inside MPC; None: it was not
    reduced: bool = False

    @property
    def private_elements(self) -> int:
        """Ring elements of the provider's stream."""
        return end_of(self.private_weights)

    @property
    def public_elements(self) -> int:
        """Ring elements of the stream of public weights."""
        return end_of(self.public_weights)


def reduced(manifest: Manifest) -> Manifest:
    """Without what the model is, takes and gives in clear: no input, label, evidence or choice of the compiler."""
    return replace(
        manifest,
        reduced=True,
        architecture="",
        inputs=(),
        outputs=tuple(o for o in manifest.outputs if not o.clear),
        evidence=(),
        approximations=(),
        labels={},
        profile="",
        local_truncations=0,
        failure_probability=0.0,
        low_rank=(),
        alternatives=(),
        savings=(),
        numbers=(),
    )


def end_of(placed: Iterable[Placed]) -> int:
    """Ring elements of a stream."""
    return max((p.position + p.elements for p in placed), default=0)


@dataclass(frozen=True)
class _Digests:
    """SHA-256 by file."""

    digests: Mapping[str, str]


def to_text(manifest: Manifest, digests: Mapping[str, str]) -> str:
    """manifest.json; `digests` are SHA-256 by file, none of them of private data."""
    table = {"format": FORMAT, "version": FORMAT_VERSION} | asdict(manifest) | {"digests": dict(digests)}
    return json.dumps(table, indent=1) + "\n"


def from_text(text: str, where: str) -> tuple[Manifest, dict[str, str]]:
    """The manifest and the digests.

    Raises:
        BundleError: not a manifest, one of another format version, or a field that is not what it should be.
    """
    table = _json(text, where)
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise BundleError("the manifest is not one of an mpcc bundle", where=where)
    version = table.pop("version", None)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format version {str(version)[:20]!r}, this mpcc reads {FORMAT_VERSION}",
            where=where,
            todo="compile again with this mpcc, or run it with the one that made it",
        )
    digests = {"digests": table.pop("digests")} if "digests" in table else {}
    try:
        return decoded(Manifest, table), dict(decoded(_Digests, digests).digests)
    except Malformed as problem:
        raise _corrupt(str(problem), where) from None


def own_digests_text(digests: Mapping[str, str]) -> str:
    """The manifest of the provider's folder: the digests of its files, which nobody else may know."""
    return json.dumps({"digests": dict(digests)}, indent=1) + "\n"


def own_digests(text: str, where: str) -> dict[str, str]:
    """The digests in the manifest of the provider's folder. BundleError as `from_text`."""
    try:
        return dict(decoded(_Digests, _json(text, where)).digests)
    except Malformed as problem:
        raise _corrupt(str(problem), where) from None


def _json(text: str, where: str) -> object:
    try:
        table: object = json.loads(text)
    except (ValueError, RecursionError):
        raise _corrupt("it is not JSON", where) from None
    return table


def _corrupt(why: str, where: str) -> BundleError:
    return BundleError(f"the manifest is corrupt: {why}", where=where, todo=COPY_AGAIN)
