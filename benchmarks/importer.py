"""MP-SPDZ's own importer, run by `importer.mpc`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.parties import PARTIES, Measurement, measure
from benchmarks.subjects import CONFIG_KEYS, Stack

SOURCE = Path(__file__).with_name("importer.mpc")
KEPT = Path("build/benchmarks/importer")


def run_importer(stack: Stack) -> tuple[Measurement, torch.Tensor]:
    """What it cost, and the result it gave (last hidden state or logits).

    Compiling takes the importer minutes, so compiled programs are kept below `build/benchmarks/importer`, by what they
    were made of.
    """
    source = SOURCE.read_text("utf-8")
    keep = KEPT / f"{stack.key}-{_digest(source, stack)}"
    measured = measure(source, lambda folder: _write(stack, folder), _streams, trunc_error=False, keep=keep)
    values = np.frombuffer(measured.output, "<f8").copy()
    return measured, torch.from_numpy(values).reshape(stack.expected.shape)


def _digest(source: str, stack: Stack) -> str:
    """Of everything that the compiled program and its streams depend on."""
    digest = hashlib.sha256(source.encode())
    for name, tensor in sorted({**stack.weights, "hidden": stack.hidden}.items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _write(stack: Stack, folder: Path) -> None:
    """The model and the input, for importer.mpc; Player-Data, into which it writes what the parties input."""
    (folder / "Player-Data").mkdir()
    config = {key: getattr(stack.config, key) for key in CONFIG_KEYS}
    about = {"config": config, "layers": stack.config.num_hidden_layers, "labels": stack.labels}
    (folder / "stack.json").write_text(json.dumps(about), "utf-8")
    torch.save({"weights": stack.weights, "hidden": stack.hidden}, folder / "stack.pt")


def _streams(folder: Path) -> tuple[bytes, ...]:
    """What the compiler wrote for the parties that have an input."""
    files = [folder / "Player-Data" / f"Input-Binary-P{player}-0" for player in range(PARTIES)]
    return tuple(file.read_bytes() if file.is_file() else b"" for file in files)
