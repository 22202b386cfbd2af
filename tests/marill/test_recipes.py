"""`mpcc finetune`: recipes end in a folder that compiles, mistakes in one line, interruptions in the same model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import child
import pytest
import torch
from tiny_models import VOCABULARY, tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from mpcc.cli import app as cli

RECIPE = """
task = "classification"
base = "base"
seed = 1
[data]
train = "train.jsonl"
eval = "eval.csv"
tokens = 12
[train]
epochs = 2
batch_size = 8
learning_rate = 1e-3
checkpoint_seconds = 0.0
[techniques]
freeze = 1
lora = {rank = 2}
merge_heads = {factor = 2, calibration = 8}
approximate = {gelu = "quad", softmax = "2quad"}
distill = {epochs = 1, hidden_epochs = 1}
"""
WORDS = [f"w{i}" for i in range(VOCABULARY - 2)]


def rows(count):
    """Class "good" where the first word has an even number."""
    return [
        (" ".join(WORDS[(7 * i + 3 * k) % len(WORDS)] for k in range(3 + i % 6)), ["good", "bad"][i % 2])
        for i in range(count)
    ]


def write_base(folder, name="BertModel"):
    model = tiny(name, layers=2, heads=4)
    model.save_pretrained(folder)
    vocabulary = {"[UNK]": 0, "[PAD]": 1} | {w: i + 2 for i, w in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def here(tmp_path):
    write_base(tmp_path / "base")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows(32)))
    (tmp_path / "eval.csv").write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in rows(12)))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def finetune(here, *more):
    return cli.call(["finetune", str(here / "recipe.toml"), "-o", str(here / "out"), *more])


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(folder):
    return {k: v for k, v in contents(folder).items() if not k.startswith("report")}


def test_a_recipe_writes_an_adapter_and_a_report(here, capsys):
    assert finetune(here) == 0
    assert "mpcc compile" in capsys.readouterr().out
    report = json.loads((here / "out/report.json").read_text())
    assert report["kind"] == "adapter" and report["frozen_layers"] == 1
    assert set(report["scores"]) == {"fine-tuned", "changed, not yet trained", "distilled"}
    assert all(0 <= s["accuracy"] <= 1 and s["examples"] == 12 for s in report["scores"].values())
    assert {len(g) for g in report["merged"]["1"]} == {2}
    assert "| merge_heads | factor = 2" in (here / "out/report.md").read_text()
    assert not (here / "out.work").exists() and not (here / "out.new").exists()
    from mpcc.marill.saving import load

    model = load(here / "out", here / "base").eval()
    assert model.config.id2label == {0: "bad", 1: "good"}
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape == (1, 2)


@pytest.mark.slow
def test_the_report_says_what_an_inference_costs(here):
    (here / "recipe.toml").write_text(RECIPE.replace("distill =", "#") + '[report]\nprotocols = ["ring", "semi2k"]\n')
    assert finetune(here) == 0
    ring, alone = json.loads((here / "out/report.json").read_text())["costs"]
    assert ring["bytes_online"] > 0 and ring["rounds"] > 0 and not ring["problem"]
    assert alone["bytes_online"] > ring["bytes_online"]


def test_language_modelling_needs_no_labels(here):
    import shutil

    shutil.rmtree(here / "base")
    write_base(here / "base", "LlamaForCausalLM")
    text = RECIPE.replace('"classification"', '"language-modelling"').replace("label", "nothing")
    (here / "recipe.toml").write_text(text.replace('gelu = "quad", ', ""))
    assert finetune(here) == 0
    scores = json.loads((here / "out/report.json").read_text())["scores"]
    assert all(s["accuracy"] is None and s["loss"] > 0 for s in scores.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_an_interrupted_run_ends_with_the_same_bytes(here, how):
    longer = RECIPE.replace("distill = {epochs = 1, ", "distill = {epochs = 25, ")  # time enough to be interrupted
    assert longer != RECIPE
    (here / "recipe.toml").write_text(longer)
    assert finetune(here) == 0
    whole = weights(here / "out")
    (here / "out").rename(here / "whole")
    command = [sys.executable, "-m", "mpcc", "finetune", str(here / "recipe.toml"), "-o", str(here / "out")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = child.start(command, env=os.environ | threads, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (here / "out.work/distill-hidden.checkpoint").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(child.SLOW_START) != 0
    assert not (here / "out").exists(), "nothing half-written"
    assert subprocess.run(command, env=os.environ | threads, check=False).returncode == 0
    assert weights(here / "out") == whole
    assert json.loads((here / "out/report.json").read_text())["resumed"]


def test_another_recipe_starts_anew(here):
    work = here / "out.work"
    work.mkdir()
    (work / "digest").write_text("of another recipe")
    (work / "fine-tune.checkpoint").write_bytes(b"stale")
    assert finetune(here) == 0
    assert not json.loads((here / "out/report.json").read_text())["resumed"]


def test_a_work_folder_of_somebody_else_is_left_alone(here, capsys):
    (here / "out.work").mkdir()
    (here / "out.work/thesis.tex").write_text("x")
    assert finetune(here) == 2
    assert (here / "out.work/thesis.tex").read_text() == "x"


MISTAKES = {
    "unknown technique": (("merge_heads =", "prune ="), "unknown technique 'prune'"),
    "misspelt technique": (("merge_heads =", "merge_head ="), "did you mean 'merge_heads'"),
    "unknown key": (("seed = 1", "sed = 1"), "did you mean 'seed'"),
    "factor that does not divide": (("factor = 2", "factor = 3"), "3 does not divide 4"),
    "factor missing": (("factor = 2, ", ""), "techniques.merge_heads.factor is missing"),
    "kind of a value": (("rank = 2", 'rank = "two"'), "techniques.lora.rank has to be a whole number"),
    "missing column": (("tokens = 12", 'text = "review"'), "no column 'review'"),
    "unknown form": (('"2quad"', '"3quad"'), "unknown form softmax=3quad"),
    "grouping": (("factor = 2", 'factor = 2, grouping = "best"'), "unknown grouping"),
    "freeze too many": (("freeze = 1", "freeze = 7"), "the model has 2"),
    "all layers frozen, LoRA": (("freeze = 1", "freeze = 2"), "all layers are frozen"),
    "epochs": (("epochs = 2\nbatch", "epochs = 0\nbatch"), "train.epochs is 0"),
    "task": (('"classification"', '"translation"'), "unknown task 'translation'"),
    "data file": (('"train.jsonl"', '"none.jsonl"'), "cannot read the data"),
    "data format": (('"train.jsonl"', '"recipe.toml"'), "JSON lines"),
    "no base": (('base = "base"', ""), "--base"),
    "base missing": (('base = "base"', 'base = "nowhere"'), "does not exist"),
    "too long": (("tokens = 12", "tokens = 500"), "takes 48 at most"),
    "distil nothing": (("merge_heads =", "#"), ""),
    "not TOML": (("seed = 1", "seed ="), "not TOML"),
}


@pytest.mark.parametrize(("change", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_wrong_recipes_end_in_one_line(here, capsys, change, said):
    text = RECIPE.replace(*change)
    if not said:
        text, said = text.replace("approximate =", "#"), "has neither"
    assert text != RECIPE
    (here / "recipe.toml").write_text(text)
    before = contents(here)
    assert finetune(here) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and err[0].startswith("mpcc: error:") and said in err[0], err
    assert contents(here) == before


def test_empty_data_is_one_line(here, capsys):
    (here / "train.jsonl").write_text("\n")
    assert finetune(here) == 2
    assert "the data has no rows" in capsys.readouterr().err


def test_a_label_that_only_the_evaluation_has_is_one_line(here, capsys):
    (here / "eval.csv").write_text("text,label\nw1 w2,strange\n")
    assert finetune(here) == 2
    err = capsys.readouterr().err
    assert "row 1 has a label that no training row has" in err and "strange" not in err


def test_a_base_of_another_architecture_is_one_line(here, capsys):
    """Weights of one family under the config of another: transformers would begin with random weights."""
    config = (here / "base/config.json").read_text()
    tiny("DistilBertModel", layers=2, heads=4).save_pretrained(here / "base")
    Path(here / "base/config.json").write_text(config)
    assert finetune(here) == 2
    assert "another architecture" in capsys.readouterr().err


def test_a_base_that_is_not_what_its_config_says_is_one_line(here, capsys):
    config = json.loads((here / "base/config.json").read_text())
    (here / "base/config.json").write_text(json.dumps(config | {"hidden_size": 2 * config["hidden_size"]}))
    assert finetune(here) == 2
    assert "other shapes than its config.json says" in capsys.readouterr().err


def test_a_family_that_is_not_known_is_one_line(here, capsys):
    import transformers

    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    transformers.T5ForSequenceClassification(transformers.T5Config(**sizes)).save_pretrained(here / "base")
    assert finetune(here) == 2
    assert "models of the kind 't5'" in capsys.readouterr().err


def test_an_existing_output_is_not_touched(here, capsys):
    (here / "out").mkdir()
    (here / "out/mine").write_text("x")
    assert finetune(here) == 2
    assert "exists already" in capsys.readouterr().err and (here / "out/mine").read_text() == "x"
