"""Files that are missing, changed or made up.

The reader is fed what anybody may send: whatever is in the files, the outcome is a program or one BundleError of one
line, never another exception. MANIFESTS and LIES are the cases as data: (file, edit, message).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mpcc
from mpcc.compiler.errors import BundleError
from tests.bundle import tiny_programs as tiny

PARTS = [
    "manifest.json",
    "graph.ir",
    "ring.ir",
    "mpc.ir",
    "client/graph.ir",
    "client/weights.safetensors",
    "client/tokenizer.json",
    "public/weights.safetensors",
    "provider/weights.safetensors",
    "provider/manifest.json",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    tiny.small_program().save(folder / "prog.mpc")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "here"))


def refusal(folder):
    """The one line that loading ends in."""
    with pytest.raises(BundleError) as caught:
        mpcc.load(folder / "prog.mpc")
    line = str(caught.value)
    assert line.isprintable() and len(line) < 400, line
    return line


# ** files that are not what they were **
@pytest.mark.parametrize("part", PARTS)
def test_missing_file_is_named(folder, part):
    (folder / "prog.mpcc" / part).unlink()
    assert f"the bundle has no {part}" in refusal(folder)


@pytest.mark.parametrize("part", PARTS)
def test_corrupt_file_is_named(folder, part):
    path = folder / "prog.mpcc" / part
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x81
    path.write_bytes(content)
    line = refusal(folder)
    assert "corrupt" in line and Path(part).parts[-1].split(".")[0] in line


@pytest.mark.parametrize("part", PARTS)
def test_a_pipe_is_no_file(folder, part):
    """Reading one would wait for ever."""
    (folder / "prog.mpcc" / part).unlink()
    os.mkfifo(folder / "prog.mpcc" / part)
    assert f"cannot read {part}: it is not a file" in refusal(folder)


def test_changed_source(folder):
    with (folder / "prog.mpc").open("a") as file:
        file.write("\n")
    assert "source was changed" in refusal(folder)


def test_missing_source_and_bundle(folder):
    (folder / "prog.mpc").rename(folder / "moved.mpc")
    with pytest.raises(BundleError, match="cannot read the program"):
        mpcc.load(folder / "prog.mpc")
    with pytest.raises(BundleError, match="the bundle has no manifest"):
        mpcc.load(folder / "moved.mpc")
    with pytest.raises(BundleError, match="no such program"):
        mpcc.load(folder / "other.mpc")
    with pytest.raises(BundleError, match=r"ends in \.mpc"):
        mpcc.load(folder / "other.txt")


# ** manifests that somebody else wrote **
def at(table, path):
    """The container and the key of a field like ("inputs", 0, "shape")."""
    for key in path[:-1]:
        table = table[key]
    return table, path[-1]


def put(*path, value):
    def edit(table):
        holder, key = at(table, path)
        holder[key] = value

    return edit


def without(*path):
    def edit(table):
        holder, key = at(table, path)
        del holder[key]

    return edit


NESTED = "[" * 100_000
HEX = "0" * 64
FORM = {"operation": "a", "form": "b", "count": 1, "domain": "", "relative": False, "changes_model": False}
MANIFESTS = [
    (put("version", value=99), "format version '99', this mpcc reads 1"),
    (put("version", value="1\n\x1b[31m"), "format version '1"),
    (put("version", value=None), "format version 'None'"),
    (put("format", value="else"), "not one of an mpcc bundle"),
    (put("inputs", value=None), "inputs is not a list"),
    (put("inputs", value=[3]), "inputs[0] is not an object"),
    (without("inputs"), "inputs is missing"),
    (without("inputs", 0, "dtype"), "inputs[0].dtype is missing"),
    (put("inputs", 0, "colour", value=1), "inputs[0] has an unknown field 'colour'"),
    (put("inputs", 0, "shape", value=8), "inputs[0].shape is not a list"),
    (put("inputs", 0, "shape", value=["8"]), "inputs[0].shape[0] is not a whole number"),
    (put("inputs", 0, "shape", value=[True, 8]), "inputs[0].shape[0] is not a whole number"),
    (put("inputs", 0, "shape", value=[-1, 8]), "the inputs of the manifest and of graph.ir differ"),
    (put("inputs", 0, "shape", value=[1, 10**12]), "the inputs of the manifest and of graph.ir differ"),
    (put("inputs", 0, "shape", value=[1, 10**300]), "inputs[0].shape[1] is too large"),
    (put("inputs", 0, "shape", value=[1, 1e300]), "inputs[0].shape[1] is not a whole number"),
    (put("inputs", 0, "name", value="a\x1b[2J"), "inputs[0].name has control characters"),
    (put("inputs", 0, "name", value="../../secret"), "the inputs of the manifest and of graph.ir differ"),
    (put("inputs", 0, "role", value="provider"), "inputs is not one there can be"),
    (put("inputs", 0, "highest", value=-5), "inputs is not one there can be"),
    (put("inputs", 0, "pad", value=-1), "inputs is not one there can be"),
    (put("outputs", 0, "frac_bits", value=3), "the outputs of the manifest and of ring.ir differ"),
    (put("outputs", 0, "clear", value="no"), "outputs[0].clear is not true or false"),
    (put("outputs", 0, "clear", value=True), "what the client computes of the manifest and of client/graph.ir differ"),
    (put("outputs", 0, "name", value="../logits"), "the outputs of the manifest and of"),
    (put("outputs", value=[]), "the outputs of the manifest and of"),
    (put("client_order", value=["nothing"]), "what the client computes of the manifest and of client/graph.ir differ"),
    (put("client_order", value=[]), "what is shared of the manifest and of ring.ir differ"),
    (put("client_order", value="abc"), "client_order is not a list"),
    (put("private_weights", 0, "elements", value=10**15), "the file does not hold the weights of this program"),
    (put("private_weights", 0, "position", value=10**15), "the private weights of the manifest and of ring.ir differ"),
    (put("private_weights", 0, "position", value=-7), "the private weights of the manifest and of ring.ir differ"),
    (put("private_weights", 0, "frac_bits", value=5000), "the private weights of the manifest and of ring.ir differ"),
    (put("private_weights", 0, "tensor", value="../x"), "the file does not hold the weights of this program"),
    (put("private_weights", value=[]), "the private weights of the manifest and of ring.ir differ"),
    (put("public_weights", value=[{"tensor": "x", "frac_bits": 1, "position": 0, "elements": 9}]), "public weights of"),
    (put("evidence", 0, "visibility", value="everybody"), "evidence is not one there can be"),
    (put("evidence", 0, "bytes", value=-1), "evidence is not one there can be"),
    (put("evidence", 0, "reason", value=["x"]), "evidence[0].reason is not a text"),
    (put("approximations", value=[FORM | {"error": float("nan")}]), "approximations[0].error is not finite"),
    (put("approximations", value=[FORM | {"error": "little"}]), "approximations[0].error is not a number"),
    (put("failure_probability", value=float("inf")), "failure_probability is not finite"),
    (put("failure_probability", value=0), "failure_probability is not one there can be"),
    (put("local_truncations", value=-3), "local_truncations is not one there can be"),
    (put("labels", value=[1]), "labels is not an object"),
    (put("labels", value={"one": "x"}), "labels has a key that is not a number"),
    (put("labels", value={"1": 1}), "labels of '1' is not a text"),
    (put("network", value="lan"), "network is not an object"),
    (put("network", "bandwidth", value=0), "network is not one there can be"),
    (put("protocol", value="../ring"), "protocol is not one there can be"),
    (put("truncation", value="up"), "truncation is not one there can be"),
    (put("ring_bits", value=32), "the ring of the manifest and of ring.ir differ"),
    (put("low_rank", value=[{}]), "low_rank[0].tensor is missing"),
    (put("savings", value=[{"without": 1}]), "savings[0].bytes is missing"),
    (put("mpcc", value={}), "mpcc is not a text"),
    (put("more", value={}), "it has an unknown field 'more'"),
    (put("digests", value=None), "digests is not an object"),
    (without("digests"), "digests is missing"),
    (without("digests", "ring.ir"), "no digest of ring.ir"),
    (without("digests", "source"), "no digest of source"),
    (put("digests", "../../etc/passwd", value=HEX), "a bundle has no file '../../etc/passwd'"),
    (put("digests", "provider/weights.safetensors", value=HEX), "a bundle has no file 'provider/weights"),
    (put("digests", "ring.ir", value="ab"), "the digest of ring.ir is no SHA-256"),
    (put("digests", "ring.ir", value=HEX), "ring.ir is corrupt: its digest is not the manifest's"),
]


@pytest.mark.parametrize("edit, message", MANIFESTS, ids=[m for _, m in MANIFESTS])
def test_manifest_of_somebody_else(folder, edit, message):
    path = folder / "prog.mpcc" / "manifest.json"
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))
    assert message in refusal(folder)


@pytest.mark.parametrize("part", ["manifest.json", "provider/manifest.json"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"format": "mpcc-bun', "it is not JSON"),
        (NESTED.encode(), "it is not JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"\xff\xfe\x00", "it is not text"),
        (b"[]", ""),
        (b"null", ""),
        (b"", "it is not JSON"),
        (b'{"digests": []}', ""),
        (b'{"digests": {"weights.safetensors": 3}}', ""),
    ],
    ids=range(9),
)
def test_manifest_that_is_no_manifest(folder, part, content, message):
    (folder / "prog.mpcc" / part).write_bytes(content)
    line = refusal(folder)
    assert message in line and "manifest" in line


# ** files whose digests are right **
def replaced(folder, part, content):
    """Another content, with its digest where it belongs."""
    path = folder / "prog.mpcc" / part
    path.write_bytes(content)
    own = part.startswith("provider/")
    table_path = folder / "prog.mpcc" / ("provider/manifest.json" if own else "manifest.json")
    table = json.loads(table_path.read_text())
    table["digests"][part.removeprefix("provider/")] = hashlib.sha256(content).hexdigest()
    table_path.write_text(json.dumps(table))


def swap(old, new):
    def edit(content):
        assert old in content
        return content.replace(old, new, 1)

    return edit


def always(content):
    return lambda old: content


def header(table):
    """A weights file with this header and eight bytes of data."""
    text = json.dumps(table).encode()
    return always(struct.pack("<Q", len(text)) + text + b"\0" * 8)


def weights(change):
    """The weights file with its arrays changed."""

    def edit(content):
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "w.safetensors"
            path.write_bytes(content)
            arrays = load_file(path)
            change(arrays)
            save_file(arrays, path)
            return path.read_bytes()

    return edit


def first(change):
    """One array replaced by a function of it."""

    def edit(arrays):
        name = min(arrays, key=lambda n: -arrays[n].size)
        arrays[name] = np.ascontiguousarray(change(arrays[name]))

    return weights(edit)


SECRETS = "provider/weights.safetensors"
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES = [
    (SECRETS, always(b""), "it is not a file of weights"),
    (SECRETS, always(b"\xff" * 8), "it is not a file of weights"),
    (SECRETS, always(struct.pack("<Q", 2**62) + b"{}"), "it is not a file of weights"),
    (SECRETS, header([]), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"shape": [2**40]}}), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"shape": [-2]}}), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"data_offsets": [0, 2**50]}}), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"data_offsets": [8, 0]}}), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"dtype": "F99"}}), "it is not a file of weights"),
    (SECRETS, header({"w": TENSOR | {"dtype": "BF16", "shape": [4]}}), "corrupt"),
    (SECRETS, header({"w": TENSOR | {"dtype": "F8_E4M3", "shape": [8]}}), "corrupt"),
    (SECRETS, header({"w": TENSOR | {"dtype": "C64", "shape": [1]}}), "it holds elements of type complex64"),
    (SECRETS, header({"w": TENSOR | {"dtype": "F16", "shape": [4]}}), "it holds elements of type float16"),
    (SECRETS, header({"w": TENSOR}), "the file does not hold the weights of this program"),
    (SECRETS, first(lambda a: a[:-1]), "the file does not hold the weights of this program"),
    ("public/weights.safetensors", always(b"{}"), "it is not a file of weights"),
    ("client/weights.safetensors", always(b"{}"), "it is not a file of weights"),
    ("client/tokenizer.json", always(b"\xff\xff"), "it is not text"),
    ("ring.ir", always(b""), "expected 'ring'"),
    ("ring.ir", always(b"ring 64\nreturn"), "the outputs of the manifest and of ring.ir differ"),
    ("ring.ir", always(b"\xff"), "it is not text"),
    ("ring.ir", swap(b"ring 64", b"ring 32"), "does not fit"),
    ("ring.ir", swap(b"ring 64", b"ring -64"), "ring.ir"),
    ("ring.ir", swap(b' = input() {name="', b' = input() {nom="'), "attribute name is missing"),
    ("ring.ir", swap(b'role="client"', b'role="public"'), "public is"),
    ("ring.ir", swap(b" = reveal(", b" = reveil("), "unknown operation"),
    ("ring.ir", swap(b"share[", b"share[9999999999999,9999999999999,"), "ring.ir"),
    ("ring.ir", swap(b"share[", b"share[-3,"), "ring.ir"),
    ("ring.ir", swap(b" <=", b" <=1e999"), "ring.ir"),
    ("ring.ir", always(b"ring 64\nr0 = input() {name=" + b"(" * 100_000), "levels of nesting"),
    ("graph.ir", always(b""), "expected 'graph'"),
    ("graph.ir", swap(b"i64[1,8]", b"i64[1,9999999999999]"), "has a size that no program has"),
    ("graph.ir", swap(b"i64[1,8]", b"f99[1,8]"), "no element type 'f99'"),
    ("graph.ir", swap(b"i64[1,8]", b"i64[1,-8]"), "non-negative"),
    ("graph.ir", swap(b"(%", b"(%not_there, %"), "is used before it is defined"),
    ("graph.ir", swap(b'return "output"', b'return "other"'), "the outputs of the manifest and of graph.ir differ"),
    ("graph.ir", always(b"graph {\n%a = x {b=" + b"(" * 100_000), "levels of nesting"),
    ("mpc.ir", swap(b'tensor="', b'tensor="../'), "the weights of the manifest and of mpc.ir differ"),
    ("mpc.ir", swap(b" = input", b" = inputt"), "what is shared of the manifest and of mpc.ir differ"),
    ("mpc.ir", swap(b": f32[", b": f32[9999999999999,"), "has a size that no program has"),
    ("client/graph.ir", swap(b'return "', b'return "x'), "what the client computes of the manifest"),
    ("client/graph.ir", always(b"graph {\n  return\n}"), "the inputs of the manifest"),
    ("client/graph.ir", swap(b'{tensor="table', b'{tensor="other'), "does not hold the weights of the client's graph"),
    ("client/graph.ir", swap(b"f32[60,4]", b"f32[61,4]"), "does not hold the weights of the client's graph"),
    ("client/weights.safetensors", first(lambda a: a.astype(np.int64)), "does not hold the weights of the client's"),
]


@pytest.mark.parametrize("part, edit, message", LIES, ids=[f"{p}: {m}" for p, _, m in LIES])
def test_digests_do_not_make_it_true(folder, part, edit, message):
    path = folder / "prog.mpcc" / part
    replaced(folder, part, edit(path.read_bytes()))
    assert message in refusal(folder)


@pytest.mark.parametrize("part", ["graph.ir", "ring.ir", "mpc.ir", "client/graph.ir", "manifest.json"])
def test_whatever_is_in_a_text_ends_in_a_program_or_a_refusal(folder, part):
    """Words of the file itself in wrong places: the nearest to a program that is none."""
    path = folder / "prog.mpcc" / part
    original, seen = path.read_bytes(), set()
    tokens = list(dict.fromkeys(original.split()))
    for seed in range(60):
        dice = random.Random(seed)
        lines = original.split(b"\n")
        number = dice.randrange(len(lines))
        words = lines[number].split(b" ")
        words[dice.randrange(len(words))] = dice.choice([*tokens, b"", b"-1", b"9" * 30, b'"', b"nan", b"{", b"]"])
        lines[number] = b" ".join(words)
        content = b"\n".join(lines)
        path.write_bytes(content) if part == "manifest.json" else replaced(folder, part, content)
        try:
            mpcc.load(folder / "prog.mpc")
        except BundleError as error:
            assert str(error).isprintable()
            seen.add(str(error))
    assert len(seen) > 2
