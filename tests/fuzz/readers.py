"""Every reader of a file that somebody else wrote: an honest file, how it is changed, and what is done with it."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from mpcc.cli.files import read_inputs
from mpcc.compiler.bundle.manifest import InputSpec
from mpcc.compiler.cost import network_of
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.frontend.sources import load
from mpcc.inputs import prepare_inputs
from mpcc.marill.recipe import read_recipe
from mpcc.runtime.parties.agreement import Disagreement, Meeting, part, session_of
from mpcc.runtime.parties.hosts import entry_of, site_of
from mpcc.runtime.parties.keys import fingerprint, install, make_identity, save_identity
from mpcc.runtime.parties.link import Confirm, Hello, Link, Open, Ready, RemoteProtocolError, Side
from tests.bundle import tiny_programs as tiny
from tests.fuzz import programs
from tests.fuzz.places import place
from tests.fuzz.programs import Kit, encoder, reader_of, stack

Read = Callable[[bytes], None]


@dataclass(frozen=True)
class Reader:
    """`seed` makes the honest file, `read` raises MpccError for a file that it refuses.

    `form` is one of `mutate.FORMS`, `share` how many of the cases this reader gets, beside the others.
    """

    name: str
    seed: Callable[[], bytes]
    form: str
    read: Read
    share: float = 1.0


# ** programs **
def _of_program(kit: Callable[[], Kit], file: str, form: str, use: Callable[[Kit], None], share: float) -> Reader:
    words = {programs.inspected: "inspect", programs.run_here: "run", programs.party: "party"}
    name = f"{file} of {kit.__name__}: {words.get(use, 'party on spu')}"
    return Reader(name, lambda: kit().content(file), form, reader_of(kit, file, use), share)


_INSPECT, _RUN, _PARTY, _SPU = programs.inspected, programs.run_here, programs.party, programs.spu_party
_CLIENT, _WEIGHTS = "client/graph.ir", "weights.safetensors"
PROGRAMS = (
    _of_program(stack, "manifest.json", "json", _INSPECT, 1),
    _of_program(stack, "manifest.json", "json", _RUN, 1),
    _of_program(stack, "manifest.json", "json", _PARTY, 1),
    _of_program(stack, "ring.ir", "ir", _INSPECT, 2),
    _of_program(stack, "ring.ir", "ir", _RUN, 2),
    _of_program(stack, "ring.ir", "ir", _PARTY, 2),
    _of_program(encoder, "ring.ir", "ir", _PARTY, 0.02),
    _of_program(stack, "graph.ir", "ir", _INSPECT, 1),
    _of_program(encoder, "graph.ir", "ir", _INSPECT, 0.1),
    _of_program(stack, "mpc.ir", "ir", _RUN, 1),
    _of_program(stack, "mpc.ir", "ir", _SPU, 2),
    _of_program(encoder, "mpc.ir", "ir", _SPU, 0.3),
    _of_program(stack, _CLIENT, "ir", _RUN, 1),
    _of_program(encoder, _CLIENT, "ir", _RUN, 0.1),
    _of_program(stack, f"client/{_WEIGHTS}", "bytes", _RUN, 1),
    _of_program(stack, f"public/{_WEIGHTS}", "bytes", _PARTY, 0.3),
    _of_program(stack, f"provider/{_WEIGHTS}", "bytes", _PARTY, 1),
    _of_program(stack, "provider/manifest.json", "json", _PARTY, 0.5),
    _of_program(stack, "prog.mpc", "text", _PARTY, 0.3),
    _of_program(stack, "client/tokenizer.json", "json", _RUN, 0.5),
)


# ** files **
def scratch() -> Path:
    return place("files", lambda folder: None)


def _in_file(name: str, use: Callable[[Path], object]) -> Read:
    def read(content: bytes) -> None:
        path = scratch() / name
        path.write_bytes(content)
        use(path)

    return read


SPECS = (
    InputSpec("input_ids", (1, 8), "i64", highest=tiny.VOCABULARY - 1),
    InputSpec("attention_mask", (1, 8), "i64"),
    InputSpec("pixels", (1, 2), "f32"),
)
INPUTS = json.dumps(
    [{"input_ids": [[*range(1, 9)]], "attention_mask": [[1] * 7 + [0]], "pixels": [[0.5, -1e3]]}]
).encode()
TEXTS = json.dumps({"text": "a fine film", "pixels": [[0.5, 2]]}).encode()
NETWORK = b"bandwidth_mbit_per_s = 100    # of one party\nround_trip_ms = 40.5\n"
RULES = b'public = ["bert.embeddings.*", "*.bias"]\nprivate = ["classifier.*"]\nopen_adapters = []\n'
RECIPE = b"""task = "classification"
base = "minilm/"
seed = 0
[data]
train = "train.jsonl"
eval = "eval.jsonl"
tokens = 48
[train]
epochs = 2
learning_rate = 2e-4
[techniques]
freeze = 4
lora = {rank = 8, targets = ["query", "value"]}
merge_heads = {factor = 4}
approximate = {gelu = "quad", softmax = "2quad"}
distill = {epochs = 2, temperature = 2.0}
[report]
protocols = ["ring"]
"""


def _given(path: Path) -> None:
    for given in read_inputs(path):
        prepare_inputs(given, SPECS, tiny.tokenizer_json())


def _tokenized(path: Path) -> None:
    spoken = {"text": "a fine film, " * 20, "pixels": [[0.5, 2.0]]}
    prepare_inputs(spoken, SPECS, path.read_bytes().decode("utf-8", "replace"), truncate=True)


def _tokenizer() -> bytes:
    """A tokenizer with a regular expression, merges and templates, as those of real models."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = [("f", "i"), ("fi", "n"), ("fin", "e")]
    words = ["[UNK]", "[CLS]", "[SEP]", *"abcdefilmn ,", *(a + b for a, b in merges)]
    made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges, unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "isolated")
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    made.decoder = decoders.BPEDecoder()
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return made.to_str(pretty=True).encode()


FILES = (
    Reader("input JSON", lambda: INPUTS, "json", _in_file("in.json", _given), 3),
    Reader("input JSON with text", lambda: TEXTS, "json", _in_file("in.json", _given), 3),
    Reader("tokenizer.json", _tokenizer, "json", _in_file("tokenizer.json", _tokenized), 3),
    Reader("network TOML", lambda: NETWORK, "text", _in_file("net.toml", network_of), 3),
    Reader("rules TOML", lambda: RULES, "text", _in_file("rules.toml", Partition.from_rules), 3),
    Reader("recipe.toml", lambda: RECIPE, "text", _in_file("recipe.toml", read_recipe), 3),
)

# ** parties **
ROLES = ("client", "provider", "helper")


def _keys() -> Path:
    return place("keys", _make_keys)


def _make_keys(folder: Path) -> None:
    entries = []
    for player, role in enumerate(ROLES):
        identity = make_identity(player)
        certificate, _ = save_identity(folder, role, identity)
        entries.append(entry_of(role, certificate, fingerprint(identity.certificate)))
    (folder / "hosts.toml").write_text("\n".join(entries))


def _hosts(content: bytes) -> None:
    path = _keys() / "other.toml"
    path.write_bytes(content)
    site_of(path, "client", ROLES)


def _certificate(content: bytes) -> None:
    """The provider's, whose fingerprint in hosts.toml is right: its author wrote that as well."""
    folder = _keys()
    (folder / "other.pem").write_bytes(content)
    hosts = (folder / "hosts.toml").read_text().replace("provider.pem", "other.pem")
    honest = fingerprint((folder / "provider.pem").read_bytes())
    (folder / "hosts2.toml").write_text(hosts.replace(honest, fingerprint(content)))
    site = site_of(folder / "hosts2.toml", "client", ROLES)
    with tempfile.TemporaryDirectory(dir=scratch()) as target:
        install(Path(target), site.identities["client"], site.certificates)


def _der() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate((_keys() / "provider.pem").read_bytes()).public_bytes(Encoding.DER)


def _in_pem(content: bytes) -> None:
    import base64

    body = base64.encodebytes(content)
    _certificate(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")


PARTS = {"ir": part(b"ir"), "protocol": part(b"ring")}


@functools.cache
def _conversation() -> bytes:
    """What the dialler says from greeting to confirmation."""
    dialler, accepter = Link(Side.DIALLER, 2, 0), Link(Side.ACCEPTER, 0, 2)
    said = dialler.send(Hello(b"n" * 32, PARTS))
    accepter.feed(said)
    accepter.next_event()
    dialler.feed(accepter.send(Hello(b"m" * 32, PARTS)))
    dialler.next_event()
    return said + dialler.send(Confirm(session_of([b"m" * 32, b"n" * 32], PARTS)))


def _stream() -> bytes:
    return Link(Side.DIALLER, 2, 0).send(Open(b"s" * 32)) + b"bytes of an engine"


class Said(Exception):
    """What the other side said is refused."""


def _listened(content: bytes) -> None:
    """The accepting end: refuses, or has met, or waits for more."""
    link, meeting = Link(Side.ACCEPTER, 0, 2), Meeting(0, 2, PARTS, b"m" * 32)
    try:
        for at in range(0, len(content), 7):
            link.feed(content[at : at + 7])
            _follow(link, meeting)
        link.feed(b"")
        _follow(link, meeting)
    except (RemoteProtocolError, Disagreement) as refused:
        raise Said(str(refused)) from None


def _follow(link: Link, meeting: Meeting) -> None:
    while (event := link.next_event()) is not None:
        if isinstance(event, Hello):
            meeting.greet(1, event.nonce, event.parts)
            link.send(Hello(b"m" * 32, PARTS))
        elif isinstance(event, Open):
            link.send(Ready())
        elif isinstance(event, Confirm):
            meeting.confirm(1, event.session)


WIRE = (
    Reader("hosts.toml", lambda: (_keys() / "hosts.toml").read_bytes(), "text", _hosts, 3),
    Reader("certificate, PEM", lambda: (_keys() / "provider.pem").read_bytes(), "text", _certificate, 3),
    Reader("certificate, DER in PEM", _der, "bytes", _in_pem, 3),
    Reader("tunnel: greeting", _conversation, "bytes", _listened, 3),
    Reader("tunnel: stream", _stream, "bytes", _listened, 3),
)


# ** models **
class Sized(torch.nn.Module):
    """A model with a weight, a text argument and an open size."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.dense(x), approximate="tanh")


@functools.cache
def _archive() -> bytes:
    rows = torch.export.Dim("rows", min=2, max=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.export.export(Sized(), (torch.zeros(5, 4),), dynamic_shapes=({0: rows},), strict=False)
        buffer = io.BytesIO()
        torch.export.save(made, buffer)
    return buffer.getvalue()


_PROGRAM = "models/model.json"


def _program_json() -> bytes:
    with zipfile.ZipFile(io.BytesIO(_archive())) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return archive.read(f"{root}/{_PROGRAM}")


def _with_program(content: bytes) -> None:
    """The archive with another description of the program, and right check sums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_archive())) as source, zipfile.ZipFile(buffer, "w") as target:
        root = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            target.writestr(name, content if name == f"{root}/{_PROGRAM}" else source.read(name))
    _in_file("model.pt2", load)(buffer.getvalue())


def _checkpoint() -> Path:
    return place("base", _make_checkpoint)


def _make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=20, pad_token_id=0
    )
    config.max_position_embeddings = 12
    BertModel(config).save_pretrained(folder)


def _in_checkpoint(name: str, use: Callable[[Path], object]) -> Read:
    def read(content: bytes) -> None:
        path = _checkpoint() / name
        original = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        try:
            use(_checkpoint())
        finally:
            path.unlink() if original is None else path.write_bytes(original)

    return read


INDEX = json.dumps({"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "model.safetensors"}}).encode()
MODELS = (
    Reader("exported program, archive", _archive, "bytes", _in_file("model.pt2", load), 3),
    Reader("exported program, description", _program_json, "json", _with_program, 0.3),
    Reader(
        "config.json",
        lambda: (_checkpoint() / "config.json").read_bytes(),
        "json",
        _in_checkpoint("config.json", load),
        0.2,
    ),
    Reader(
        "model.safetensors",
        lambda: (_checkpoint() / "model.safetensors").read_bytes(),
        "bytes",
        _in_checkpoint("model.safetensors", load),
        0.3,
    ),
    Reader(
        "base checkpoint",
        lambda: (_checkpoint() / "model.safetensors").read_bytes(),
        "bytes",
        _in_checkpoint("model.safetensors", Partition.from_base),
        3,
    ),
    Reader(
        "base checkpoint, index",
        lambda: INDEX,
        "json",
        _in_checkpoint("model.safetensors.index.json", Partition.from_base),
    ),
)
READERS = (*PROGRAMS, *FILES, *WIRE, *MODELS)
