"""What the demo shows: everything it says about agreement, in 80 columns."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import torch
from rich.console import Console

from examples.sentiment.demo import Comparison, costs
from examples.sentiment.reviews import LABELS_FILE
from mpcc.runtime.engine import Measured

MODEL = SimpleNamespace(config=SimpleNamespace(id2label={0: "negative", 1: "positive"}))


def compared():
    found = Comparison(MODEL)
    found.expected = [torch.tensor([[1.0, -1.0]]), torch.tensor([[-2.125, 3.5]]), torch.tensor([[0.1, 0.2]])]
    found.found = [torch.tensor([[1.5, -1.0]]), torch.tensor([[-2.125, 3.25]]), torch.tensor([[0.2, 0.1]])]
    return found


def test_agreement():
    found = compared()
    assert found.equal == 2 and torch.allclose(found.errors, torch.tensor([0.5, 0.25, 0.1]))
    assert found.summary().startswith("2 of 3 labels equal PyTorch's, logits differ by 0.5000 at most, 0.28")


def test_the_table_fits_into_80_columns(tmp_path):
    texts = [{"text": f"[review] {'long ' * 30}", "label": 0, "name": "negative"}] * 3
    (tmp_path / LABELS_FILE).write_text(json.dumps(texts))
    console = Console(file=io.StringIO(), width=80)
    console.print(compared().table(tmp_path, "Predictions"))
    title, head, *rows = (line.rstrip() for line in console.file.getvalue().splitlines())
    assert title == "Predictions" and head.split() == ["review", "PyTorch", "mpcc", "label", "truth"]
    assert rows[1].endswith("-2.125 +3.500  -2.125 +3.250  positive  negative") and rows[1].startswith("[review] long")
    assert max(map(len, rows)) <= 80 and not any("…" in row for row in rows)


def test_costs():
    """Sharing the weights is told apart from the inferences."""
    first = Measured("spu", (1_000_000, 2_000_000), (8, 10), 2.0, 5_000_000, 0.25, 3000, 1.0)
    second = Measured("spu", (1_000_000, 4_000_000), (8, 20), 4.0, 0, 0.0, 3000, 0.0)
    each, once = costs([first, second])
    assert each == "per inference: 4.0 MB sent by all parties in 15 messages, 3.00 s; 3.0 kB for input and output"
    assert once == "once: 5.0 MB to share the weights, 0.25 s"
