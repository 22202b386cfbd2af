"""What is opened to the client can be less than the logits: a label, or rounded numbers; and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import mpcc
from mpcc import MpccError
from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.compiler.driver.check_options import check_options
from mpcc.compiler.driver.check_output import check_output
from mpcc.compiler.driver.options import Options
from mpcc.extraction import Extraction, extraction, warning
from mpcc.program import Program
from mpcc.verify import ModelReference, verify
from tests.bundle import tiny_programs as tiny

CLASSES, ROWS = 5, 4
NAMES = {i: f"class-{i}" for i in range(CLASSES)}


class Bag(torch.nn.Module):
    """A public table and a private head whose logits are often equal: the larger ones are cut off."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table, self.out = torch.nn.Embedding(tiny.VOCABULARY, 4), torch.nn.Linear(4, classes)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return 0.5 - torch.relu(0.5 - 4.0 * self.out(self.table(input_ids).mean(1)))


MODEL = Bag().eval()


def ids(seed, rows=ROWS):
    return {"input_ids": torch.randint(0, tiny.VOCABULARY, (rows, 3), generator=torch.Generator().manual_seed(seed))}


def compiled(model=MODEL, **options):
    rules = mpcc.Partition.from_rules({"public": ["table.*"]})
    made = mpcc.compile(model, ids(0), rules, calibrate_random=8, **options)
    return Program(replace(made.bundle, manifest=replace(made.bundle.manifest, labels=NAMES)))


@pytest.fixture(scope="module")
def label():
    return compiled(output="label")


@pytest.fixture(scope="module")
def rounded():
    return compiled(output_frac_bits=3)


def command(capsys, monkeypatch, program, *arguments):
    monkeypatch.setattr(files, "load", lambda path: program)
    assert cli.call([str(a) for a in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("as_json", [True, False])
def test_only_the_label_is_told(label, capsys, monkeypatch, tmp_path, as_json):
    """The first of equal logits, by name; no digits of a logit in what the client is shown."""
    (tmp_path / "in.json").write_text(json.dumps([{k: v.tolist() for k, v in ids(7).items()}]))
    arguments = ["run", "p.mpc", "--input", tmp_path / "in.json", "--engine", "emulator"]
    out = command(capsys, monkeypatch, label, *arguments, *(["--json"] if as_json else []))
    logits = MODEL(**ids(7))
    wanted = logits.argmax(-1).tolist()
    assert (logits == logits.max(-1, keepdim=True).values).sum() > ROWS, "no two logits are equal"
    if as_json:
        table = json.loads(out)
        assert table["outputs"] == {"label": wanted} and table["labels"] == {"label": [NAMES[i] for i in wanted]}
    assert all(f"{abs(v):.3f}" not in out for v in logits.flatten().tolist())
    assert all(NAMES[i] in out for i in wanted) and "logits" not in out


def test_the_bundle_says_what_is_told(label, rounded, capsys, monkeypatch):
    (told,) = label.bundle.manifest.outputs
    assert (told.name, told.shape, told.frac_bits, told.whole) == ("label", (ROWS,), 0, True)
    assert rounded.bundle.manifest.output_frac_bits == rounded.bundle.manifest.outputs[0].frac_bits == 3
    for program, text in ((label, "which logit is the largest, and no logit"), (rounded, "multiples of 2^-3")):
        learns = json.loads(command(capsys, monkeypatch, program, "inspect", "p.mpc", "--json"))["roles"]["client"]
        assert len(learns["learns"]) == 1 and text in learns["learns"][0]


def test_rounded_logits(rounded):
    """Multiples of an eighth, at most a sixteenth further away than the program's own error."""
    found = rounded.run(ids(5), "emulator").outputs["output"]
    assert torch.equal(found * 8, torch.round(found * 8))
    assert 0.005 < (found - MODEL(**ids(5))).abs().max() <= 2.0**-4 + 1e-3


def test_saved_and_loaded(label, rounded, tmp_path):
    for number, program in enumerate((label, rounded)):
        program.save(tmp_path / f"p{number}.mpc")
        again = mpcc.load(tmp_path / f"p{number}.mpc")
        assert again.bundle.manifest == program.bundle.manifest
        name = program.bundle.manifest.outputs[0].name
        assert torch.equal(again.run(ids(1), "emulator").outputs[name], program.run(ids(1), "emulator").outputs[name])


def test_verify_knows_what_is_told(label, rounded):
    samples = [ids(seed) for seed in range(3)]
    turned = copy.deepcopy(MODEL)
    turned.out.weight.data.neg_()
    for program in (label, rounded):
        for options in ({}, {"layers": True}, {"model": ModelReference(program, MODEL)}):
            assert verify(program, samples, engine="emulator", tolerance=2e-3, **options).ok
        assert not verify(program, samples, engine="emulator", model=ModelReference(program, turned)).ok
    check = verify(label, samples, engine="emulator").outputs["label"]
    assert check.same_labels <= check.rows == 3 * ROWS
    assert verify(rounded, samples, engine="emulator").outputs["output"].rounding == 2.0**-4


def test_new_weights_for_a_label(label):
    """The same program: what is told is a part of what it computes."""
    again = label.with_weights(MODEL)
    assert torch.equal(again.run(ids(1), "emulator").outputs["label"], label.run(ids(1), "emulator").outputs["label"])


@pytest.mark.slow
@pytest.mark.spu
def test_spu_tells_the_same(label, rounded):
    assert label.run(ids(7), "spu").outputs["label"].tolist() == MODEL(**ids(7)).argmax(-1).tolist()
    found = rounded.run(ids(5), "spu").outputs["output"]
    assert (found * 8 - torch.round(found * 8)).abs().max() < 1e-3
    assert (found - MODEL(**ids(5))).abs().max() <= 2.0**-4 + 1e-3


# ** refusals **
def captured(*outputs, config=None):
    return SimpleNamespace(config=config, graph=SimpleNamespace(outputs=[(name, "y") for name in outputs]))


@pytest.mark.parametrize(
    "model, text",
    [
        (captured("logits", config={"problem_type": "regression"}), "regression"),
        (captured("logits", config={"problem_type": "multi_label_classification"}), "several labels"),
        (captured("last_hidden_state", "pooler_output", config={}), "no logits; its results are: last_hidden_state"),
        (captured("start_logits", "end_logits"), "no logits"),
    ],
)
def test_models_without_a_label(model, text):
    with pytest.raises(MpccError, match=text):
        check_output(model, Options(output="label"))
    check_output(model, Options())


def test_one_number_a_row_has_no_largest():
    with pytest.raises(MpccError, match="have 1 value a row"):
        compiled(Bag(1).eval(), output="label")


@pytest.mark.parametrize(
    "options, text",
    [
        ({"output": "labels"}, "choose one of: logits, label, all"),
        ({"output": "label", "output_frac_bits": 3}, "nothing to round"),
        ({"output_frac_bits": -1}, "not one from 0 to 30"),
    ],
)
def test_options_that_say_nothing(options, text):
    with pytest.raises(MpccError, match=text):
        check_options(Options(**options))


# ** how soon a client has been told everything **
def test_bits_that_are_told(label, rounded):
    """A label of 5 classes tells 3 bits, a number its bits and its sign; the head has 25 weights of 16 bits."""
    weights = 25 * (label.bundle.manifest.weight_frac_bits + 1)
    assert extraction(label.bundle) == Extraction(weights, ROWS * 3)
    bound = next(n.type.bound for n in rounded.bundle.ring if n.op == "reveal")
    bits = int(bound * 8).bit_length() + 1
    assert extraction(rounded.bundle) == Extraction(weights, ROWS * CLASSES * bits)


@pytest.mark.parametrize("found, answers", [(Extraction(1000, 7), 143), (Extraction(10**9, 7), None)])
def test_a_small_private_part_is_named(found, answers):
    text = warning(found)
    assert (f"{answers} inferences tell" in text) if answers else not text


def test_compile_says_so(capsys, tmp_path):
    mpcc.save(MODEL, tmp_path / "model.pt2", ids(0))
    arguments = ["compile", tmp_path / "model.pt2", "-o", tmp_path / "p.mpc", "--calibrate-random", 4]
    assert cli.call([str(a) for a in [*arguments, "--output", "label"]]) == 0
    assert "the private part is small" in capsys.readouterr().err
