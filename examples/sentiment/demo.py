"""The main job on a real model: compile it against its open base, look at the cost, run it on held-out reviews.

Everything is done with the commands a user would type; they are printed before they run. The comparison with PyTorch
uses the same program through the Python API. With MP_SPDZ_HOME set, three real parties compute the last step.
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
from rich.progress import track
from rich.table import Table
from transformers import BertForSequenceClassification

import mpcc
from examples.sentiment.data import SEQUENCE_LENGTH, base_folder
from examples.sentiment.reviews import CALIBRATION_FILE, LABELS_FILE, REVIEWS_FILE, write_all
from mpcc.compiler.errors import MpccError
from mpcc.engine_choice import choose_engine

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


def torch_logits(model: BertForSequenceClassification, review: dict[str, list[list[int]]]) -> torch.Tensor:
    """Logits [1, labels] of one encoded review in plain PyTorch."""
    with torch.no_grad():
        logits = model(**{name: torch.tensor(values) for name, values in review.items()}).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def compare(program: mpcc.Program, model: BertForSequenceClassification, reviews: list[dict[str, list[list[int]]]],
            engine: str) -> tuple[int, float, float]:  # fmt: skip
    """(equal labels, largest and mean difference of a logit) of the program on `engine` against PyTorch."""
    equal, differences = 0, []
    for i, review in enumerate(track(reviews, f"{engine}, {len(reviews)} reviews", console=console)):
        expected = torch_logits(model, review)
        found = program.run(review, engine=engine, seed=i).outputs["logits"]  # type: ignore[arg-type]
        equal += int(found.argmax() == expected.argmax())
        differences.append((found - expected).abs().max())
    errors = torch.stack(differences)
    return equal, float(errors.max()), float(errors.mean())


def predictions(program: mpcc.Program, model: BertForSequenceClassification, out: Path, count: int) -> Table:
    """A table of predictions beside PyTorch's for the first reviews."""
    reviews = json.loads((out / REVIEWS_FILE).read_text("utf-8"))[:count]
    texts = json.loads((out / LABELS_FILE).read_text("utf-8"))
    names = {int(k): str(v) for k, v in (model.config.id2label or {}).items()}
    table = Table(title="Predictions", title_justify="left")
    for column in ("review", "PyTorch", "mpcc", "truth"):
        table.add_column(column, no_wrap=True)
    for review, text in zip(reviews, texts, strict=False):
        logits = torch_logits(model, review)[0]
        found = program.run(review, engine="emulator").outputs["logits"][0]
        cells = [f"{v[0]:+.3f} {v[1]:+.3f} {names[int(v.argmax())]}" for v in (logits, found)]
        table.add_row(text["text"][:22], *cells, text["name"])
    return table


def run_secure(
    program: mpcc.Program,
    model: BertForSequenceClassification,
    reviews: list[dict[str, list[list[int]]]],
    target: Path,
) -> bool:
    """Run reviews on three real parties of the first secure engine there is; whether all agree with PyTorch."""
    try:
        engine, why = choose_engine(None)
    except MpccError as error:
        console.print(f"no secure run: {error.what}", markup=False)
        return True
    console.print(f"\nsecure engine: {engine} ({why})", markup=False)
    one = target.with_name("review.json")
    one.write_text(json.dumps(reviews[0]), "utf-8")
    command("run", target, "--input", one, "--engine", engine)
    equal, largest, _ = compare(program, model, reviews, engine)
    console.print(
        f"three parties: {equal} of {len(reviews)} labels equal PyTorch's, logits differ by {largest:.4f} at most"
    )
    return equal == len(reviews) and largest <= TOLERANCE


def main(
    out: Annotated[Path, typer.Option(help="Folder with the trained model.")] = Path("build/sentiment"),
    count: Annotated[int, typer.Option(min=1, help="Held-out reviews for the emulator.")] = 200,
    secure: Annotated[int, typer.Option(min=0, help="Reviews for three real parties (mp-spdz or spu).")] = 5,
) -> None:
    """Compile the trained model, print partition and costs, and compare its predictions with PyTorch's."""
    write_all(out, count, 64)
    target = out / "prog.mpc"
    command("compile", out / "model", "--base", base_folder(), "--calibration", out / CALIBRATION_FILE,
            "--sequence-length", str(SEQUENCE_LENGTH), "-o", target)  # fmt: skip
    command("inspect", target)

    program = mpcc.load(target)
    model = BertForSequenceClassification.from_pretrained(out / "model")
    model.train(False)
    reviews = json.loads((out / REVIEWS_FILE).read_text("utf-8"))
    console.print()
    console.print(predictions(program, model, out, 6))
    equal, largest, mean = compare(program, model, reviews, "emulator")
    console.print(f"emulator: {equal} of {count} labels equal PyTorch's, logits differ by {largest:.4f} at most, "
                  f"{mean:.4f} on average")  # fmt: skip
    failed = equal < count - max(1, count // 200) or largest > TOLERANCE

    failed |= not run_secure(program, model, reviews[:secure], target) if secure else False
    if failed:
        console.print("[red]the program does not agree with PyTorch[/red]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
