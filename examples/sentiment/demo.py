"""The main job on a real model: compile it against its open base, look at the cost, run it on held-out reviews.

Compiling and inspecting are done with the commands a user would type; they are printed before they run. The comparison
with PyTorch uses the same program through the Python API. At the end three real parties compute: on MP-SPDZ where
MP_SPDZ_HOME says where it is, else on SPU.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from rich.text import Text
from transformers import BertForSequenceClassification

import mpcc
from examples.sentiment.data import SEQUENCE_LENGTH, base_folder
from examples.sentiment.reviews import CALIBRATION_FILE, LABELS_FILE, REVIEWS_FILE, write_all
from mpcc.compiler.errors import MpccError
from mpcc.engine_choice import choose_engine
from mpcc.runtime.engine import Measured
from mpcc.runtime.engines import engine_class
from mpcc.sizes import size

Review = dict[str, list[list[int]]]
TOLERANCE = 0.02
console = Console()


def command(*arguments: str | Path) -> None:
    """Run an mpcc command as a user would, and print it."""
    words = [str(a) for a in arguments]
    shown = " ".join(shlex.quote(w.replace(str(base_folder()), "$BASE")) for w in words)
    console.print(f"\n[bold]$ mpcc {shown}[/bold]", highlight=False)
    done = subprocess.run([sys.executable, "-m", "mpcc", *words], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def torch_logits(model: BertForSequenceClassification, review: Review) -> torch.Tensor:
    """Logits [1, labels] of one encoded review in plain PyTorch."""
    with torch.no_grad():
        logits = model(**{name: torch.tensor(values) for name, values in review.items()}).logits
    assert isinstance(logits, torch.Tensor)
    return logits


class Comparison:
    """Logits of a program beside PyTorch's, one review after the other."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.model = model
        self.expected: list[torch.Tensor] = []
        self.found: list[torch.Tensor] = []

    def add(self, review: Review, logits: torch.Tensor) -> None:
        """Note the logits [1, labels] that were computed for a review."""
        self.expected.append(torch_logits(self.model, review))
        self.found.append(logits)

    @property
    def equal(self) -> int:
        """How many labels are PyTorch's."""
        return sum(int(a.argmax() == b.argmax()) for a, b in zip(self.found, self.expected, strict=True))

    @property
    def errors(self) -> torch.Tensor:
        """The largest difference of a logit, by review."""
        return torch.stack([(a - b).abs().max() for a, b in zip(self.found, self.expected, strict=True)])

    def summary(self) -> str:
        return (
            f"{self.equal} of {len(self.found)} labels equal PyTorch's, logits differ by "
            f"{float(self.errors.max()):.4f} at most, {float(self.errors.mean()):.4f} on average"
        )

    def table(self, out: Path, title: str) -> Table:
        """Predictions beside PyTorch's and the truth; it fits into 80 columns."""
        texts = json.loads((out / LABELS_FILE).read_text("utf-8"))
        names = {int(k): str(v) for k, v in (self.model.config.id2label or {}).items()}
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("review", "PyTorch", "mpcc", "label", "truth"):
            table.add_column(column, no_wrap=True)
        for expected, found, text in zip(self.expected, self.found, texts, strict=False):
            cells = [" ".join(f"{v:+.3f}" for v in logits[0].tolist()) for logits in (expected, found)]
            table.add_row(Text(text["text"][:24]), *cells, names[int(found.argmax())], text["name"])
        return table


def run_secure(program: mpcc.Program, compared: Comparison, reviews: list[Review], out: Path) -> bool:
    """Run reviews in one session of the first secure engine there is; whether all agree with PyTorch."""
    try:
        engine, why = choose_engine(None)
    except MpccError as error:
        console.print(f"no secure run: {error.what}", markup=False)
        return True
    console.print(f"\nsecure engine: {engine.name} ({why})", markup=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{engine.name}, {len(reviews)} reviews", total=len(reviews))
        results = program.run_many(reviews, engine=engine.name, on_result=lambda result: progress.advance(task))
    for review, result in zip(reviews, results, strict=True):
        compared.add(review, result.outputs["logits"])
    console.print(compared.table(out, f"Three parties, engine {engine.name}"))
    console.print(f"\nthree parties: {compared.summary()}")
    for line in costs([r.measured for r in results if r.measured is not None]):
        console.print(line, highlight=False)
    return compared.equal == len(reviews) and float(compared.errors.max()) <= TOLERANCE


def costs(measured: list[Measured]) -> list[str]:
    """What an inference cost on average, and what was paid once."""
    count, once = len(measured), measured[0]
    sent = sum(m.bytes_online for m in measured) / count
    around = sum(m.input_bytes for m in measured) / count
    rounds = sum(m.rounds for m in measured) / count
    seconds = sum(m.seconds for m in measured) / count
    word = engine_class(once.engine).exchanges
    return [
        f"per inference: {size(sent)} sent by all parties in {rounds:,.0f} {word}, {seconds:.2f} s; "
        f"{size(around)} for input and output",
        f"once: {size(once.provisioning_bytes)} to share the weights, {once.provisioning_seconds:.2f} s",
    ]


def main(
    out: Annotated[Path, typer.Option(help="Folder with the trained model.")] = Path("build/sentiment"),
    count: Annotated[int, typer.Option(min=1, help="Held-out reviews for the emulator.")] = 50,
    secure: Annotated[int, typer.Option(min=0, help="Reviews for three real parties (mp-spdz or spu).")] = 20,
) -> None:
    """Compile the trained model, print partition and costs, and compare its predictions with PyTorch's."""
    write_all(out, max(count, secure), 64)
    target = out / "prog.mpc"
    command(
        "compile",
        out / "model",
        "--base",
        base_folder(),
        "--calibration",
        out / CALIBRATION_FILE,
        "--sequence-length",
        str(SEQUENCE_LENGTH),
        "-o",
        target,
    )
    command("inspect", target)

    program = mpcc.load(target)
    model = BertForSequenceClassification.from_pretrained(out / "model")
    model.train(False)
    reviews = json.loads((out / REVIEWS_FILE).read_text("utf-8"))
    emulated = Comparison(model)
    for i, review in enumerate(track(reviews[:count], f"emulator, {count} reviews", console=console)):
        emulated.add(review, program.run(review, engine="emulator", seed=i).outputs["logits"])
    console.print(f"emulator: {emulated.summary()}")
    failed = emulated.equal < count - max(1, count // 200) or float(emulated.errors.max()) > TOLERANCE
    failed |= not run_secure(program, Comparison(model), reviews[:secure], out) if secure else False
    if failed:
        console.print("[red]the program does not agree with PyTorch[/red]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
