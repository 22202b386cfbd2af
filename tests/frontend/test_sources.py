"""Every kind of file and folder a model can come in."""

from __future__ import annotations

import copy
import json
import zipfile
from importlib.metadata import EntryPoint, entry_points

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend import sources
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.export import save_model
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.marill.head_merging import merge_heads
from mpcc.marill.saving import restore, save
from tests.frontend.conftest import batch, tiny

TOKENIZER = '{"version": "1.0", "model": {}}'


@pytest.fixture(scope="module")
def model():
    return tiny("BertForSequenceClassification", num_labels=3)


def assert_same(captured, model, inputs):
    got = outputs_of(captured.graph, run_graph(captured.graph, inputs, captured.tensors))
    with torch.no_grad():
        torch.testing.assert_close(got["logits"], model(**inputs).logits, rtol=1e-5, atol=1e-5)


def test_exported_program_under_any_suffix(model, tmp_path):
    inputs = batch(6, 2)
    program = torch.export.export(model, (), inputs, strict=False)
    for path in (tmp_path / "model.pt2", tmp_path / "model.pt"):
        torch.export.save(program, path)
        captured = capture(path)
        assert_same(captured, model, inputs)
        assert captured.architecture == "BertForSequenceClassification"
        assert captured.trainable["classifier.weight"]
    assert_same(capture(program), model, inputs)
    with pytest.raises(MpccError, match="exported for input_ids of shape"):
        capture(path, batch(7))


def test_exported_program_with_open_sizes(model, tmp_path):
    size = torch.export.Dim("seq", min=2, max=30)
    open_ = {k: {1: size} for k in ("input_ids", "attention_mask")}
    torch.export.save(torch.export.export(model, (), batch(6), dynamic_shapes=open_, strict=False), tmp_path / "m.pt2")
    captured = capture(tmp_path / "m.pt2", batch(9))
    assert_same(captured, model, batch(9, 3))
    assert "classifier.weight" in captured.tensors


def test_hugging_face_folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(TOKENIZER)
    captured = capture(tmp_path, sequence_length=5, batch_size=2)
    assert_same(captured, model, batch(5, 1))
    assert captured.tokenizer_json == TOKENIZER
    assert captured.config is not None and len(captured.config["id2label"]) == 3


def test_folder_without_safetensors_or_with_a_strange_class(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    with pytest.raises(MpccError, match="safetensors"):
        capture(tmp_path, sequence_length=5)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("AutoTokenizer", "os.system", "BertConfig"):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
        with pytest.raises(MpccError, match="no model class"):
            capture(tmp_path, sequence_length=5)


def test_adapter_folder(model, tmp_path):
    base = tmp_path / "base"
    tiny("BertModel").save_pretrained(base)
    inner = tiny("BertForSequenceClassification", num_labels=3)
    plain = type(inner).from_pretrained(base, num_labels=3)
    wrapped = get_peft_model(plain, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapter = tmp_path / "adapter"
    wrapped.save_pretrained(adapter)
    with pytest.raises(MpccError, match="base"):
        capture(adapter, sequence_length=5)
    captured = capture(adapter, base=base, sequence_length=5, batch_size=2)
    assert_same(captured, wrapped.eval(), batch(5, 1))
    assert captured.peft is not None and len(captured.peft.lora_a) == 2
    assert not any(captured.trainable.values()), "which is why requires_grad is no evidence"


def test_saved_model(model, tmp_path):
    path = tmp_path / "saved.mpcc-model"
    wrapped = get_peft_model(tiny("BertForSequenceClassification"), LoraConfig(r=2, target_modules=["query"]))
    save_model(wrapped, path, batch(6), tokenizer=TOKENIZER)
    captured = capture(path)
    assert_same(captured, wrapped.eval(), batch(6, 2))
    assert captured.tokenizer_json == TOKENIZER
    assert captured.architecture == "BertForSequenceClassification"
    assert captured.config is not None and captured.peft is not None
    assert sum(captured.trainable.values()) == 4
    with zipfile.ZipFile(path) as archive:
        meta = json.loads(archive.read("mpcc.json"))
    assert meta["format"] == "mpcc-model" and len(meta["peft"]["lora_a"]) == 2


def test_tied_weights_survive_files(tmp_path):
    from tests.frontend.test_capture import Tied

    save_model(Tied(), tmp_path / "tied", {"ids": torch.tensor([[1, 2]])})
    assert capture(tmp_path / "tied").aliases == {"head.weight": "table.weight"}


def test_pickles_are_refused(model, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(model, path)
    with pytest.raises(MpccError, match="pickle"):
        capture(path, batch(5))
    assert_same(capture(path, batch(5), allow_pickle=True), model, batch(5, 1))
    old = tmp_path / "old.pt2"
    torch.save(model, old, _use_new_zipfile_serialization=False)
    with pytest.raises(MpccError, match="pickle"):
        capture(old, batch(5))
    torch.save(model.state_dict(), path)
    with pytest.raises(MpccError, match="no module"):
        capture(path, batch(5), allow_pickle=True)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_a_pickle_inside_an_exported_program_does_not_run(model, tmp_path):
    path, evil = tmp_path / "m.pt2", tmp_path / "evil.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    bomb = tmp_path / "bomb"
    torch.save(Bomb(), bomb)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("weights_config.json"):
                config = json.loads(data)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                data = json.dumps(config).encode()
            if "/data/weights/" in name and not name.endswith(".json"):
                data = bomb.read_bytes()
            if name.endswith(("sample_inputs/model.pt", ".pt")):
                data = bomb.read_bytes()
            target.writestr(name, data)
    with pytest.raises(MpccError, match="cannot load"):
        capture(evil)


def test_compiled_code_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/data/aotinductor/model/x.so", b"")
    with pytest.raises(MpccError, match="compiled code"):
        capture(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(MpccError, match="no such"):
        capture(tmp_path / "nothing")
    with pytest.raises(MpccError, match="neither"):
        capture(tmp_path)
    (tmp_path / "x").write_text("hello")
    with pytest.raises(MpccError, match="no known kind"):
        capture(tmp_path / "x")
    with pytest.raises(MpccError, match="cannot be read"):
        capture(3)


def test_marill_reads_what_it_left_in_a_folder():
    """The compiler does not know marill: it asks for what is registered."""
    (loader,) = entry_points(group=sources.LOADERS)
    assert loader.name == "marill" and loader.load() is restore


@pytest.mark.parametrize("merged", [False, True])
def test_every_loader_is_asked_and_none_is_an_error_where_one_is_needed(model, tmp_path, monkeypatch, merged):
    model = copy.deepcopy(model)
    if merged:
        merge_heads(model, 2, grouping="adjacent")
    save(model, tmp_path)
    asked = []
    entry = EntryPoint("a", "tests:none", sources.LOADERS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda module, folder: asked.append(folder))
    monkeypatch.setattr(sources, "entry_points", lambda group: (entry, entry))
    sources.load(tmp_path)
    assert asked == [tmp_path, tmp_path]
    monkeypatch.setattr(sources, "entry_points", lambda group: ())
    if merged:
        with pytest.raises(MpccError, match="computes more than its weights say"):
            sources.load(tmp_path)
    else:
        assert sources.load(tmp_path).module is not None
