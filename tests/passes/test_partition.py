"""Which weights are public and on what evidence; everything that nobody proved is private."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from small_graphs import Maker

from mpcc.compiler.errors import PartitionError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.partition import Partition, check_base, hide, labels_of
from mpcc.compiler.frontend.publishing import check_published, is_task_head, notes


def captured(tensors, *, kinds=None, aliases=None, architecture="", implied=None):
    """A model that reads these tensors."""
    m = Maker()
    x = m.input("x", (1,))
    for name, value in tensors.items():
        m.param(name, *(value.shape or (1,)))
    graph = m.graph(y=x)
    return Captured(graph, dict(tensors), kinds or {}, aliases or {}, {}, None, None, None, architecture, implied or {})


def weights(*names, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 2, generator=g) for name in names}


def labels(partition, model):
    return {e.tensor: e.visibility for e in partition.label(model)}


NAMES = ("encoder.layer.0.weight", "encoder.layer.0.bias", "pooler.weight")


def test_nothing_is_public_by_default():
    assert set(labels(Partition.all_private(), captured(weights(*NAMES))).values()) == {"provider"}


def test_equal_bytes_are_public_and_the_evidence_names_the_tensor():
    base = weights(*NAMES)
    tensors = dict(base) | {"pooler.weight": base["pooler.weight"] + 1e-7, "classifier.weight": torch.ones(2, 3)}
    evidence = {e.tensor: e for e in Partition.from_base(base).label(captured(tensors))}
    assert {n: e.visibility for n, e in evidence.items()} == {
        "encoder.layer.0.weight": "public",
        "encoder.layer.0.bias": "public",
        "pooler.weight": "provider",
        "classifier.weight": "provider",
    }
    assert "byte-equal to encoder.layer.0.bias" in evidence["encoder.layer.0.bias"].reason
    assert "differs from pooler.weight" in evidence["pooler.weight"].reason
    assert "not in the base" in evidence["classifier.weight"].reason
    assert evidence["encoder.layer.0.bias"].bytes == 24


def test_negative_zero_and_nan_are_compared_by_bytes():
    zero, nan = torch.zeros(2), torch.full((2,), torch.nan)
    partition = Partition.from_base({"a.w": zero, "b.w": nan})
    assert labels(partition, captured({"a.w": -zero, "b.w": nan.clone()})) == {"a.w": "provider", "b.w": "public"}


@pytest.mark.parametrize("change", [lambda t: t.double(), lambda t: t.reshape(2, 3)], ids=["dtype", "shape"])
def test_same_numbers_in_another_form_are_private(change):
    base = weights("a.w")
    assert labels(Partition.from_base(base), captured({"a.w": change(base["a.w"])})) == {"a.w": "provider"}


PREFIXES = {
    "base without a prefix": ("bert.encoder.w", "encoder.w"),
    "base with bert.": ("encoder.w", "bert.encoder.w"),
    "base with roberta.": ("encoder.w", "roberta.encoder.w"),
    "base with distilbert.": ("transformer.layer.0.w", "distilbert.transformer.layer.0.w"),
    "both with bert.": ("bert.encoder.w", "bert.encoder.w"),
    "peft": ("base_model.model.bert.encoder.w", "bert.encoder.w"),
    "peft base layer": ("base_model.model.bert.encoder.query.base_layer.weight", "bert.encoder.query.weight"),
    "peft, bare base": ("base_model.model.bert.encoder.query.base_layer.weight", "encoder.query.weight"),
}


@pytest.mark.parametrize(("name", "base_name"), PREFIXES.values(), ids=PREFIXES)
def test_wrapper_prefixes(name, base_name):
    value = torch.randn(2, 2)
    partition = Partition.from_base({base_name: value, "bert.other.w": torch.randn(2)})
    model = captured({name: value.clone()})
    check_base(model, partition)
    assert labels(partition, model) == {name: "public"}


def test_a_tail_that_happens_to_fit_is_not_the_same_name():
    """A bare last component (`weight`) matches nothing: two tensors of zeros are not one."""
    zeros = torch.zeros(4)
    partition = Partition.from_base({"bias": zeros, "cls.predictions.bias": zeros, "x.w": torch.ones(1)})
    assert labels(partition, captured({"classifier.bias": zeros.clone(), "head.bias": zeros.clone()})) == {
        "classifier.bias": "provider",
        "head.bias": "provider",
    }


def test_equal_zero_biases_are_public_by_their_own_name_only():
    zeros = torch.zeros(4)
    base = {"layer.0.bias": zeros, "layer.1.bias": torch.ones(4)}
    model = captured({"layer.0.bias": zeros.clone(), "layer.1.bias": zeros.clone(), "layer.2.bias": zeros.clone()})
    assert labels(Partition.from_base(base), model) == {
        "layer.0.bias": "public",
        "layer.1.bias": "provider",
        "layer.2.bias": "provider",
    }


@pytest.mark.parametrize("part", ["lora_A.default.weight", "lora_B.default.weight"])
def test_adapter_tensors_are_private_even_if_the_base_holds_them(part):
    name = f"base_model.model.bert.q.{part}"
    value = torch.zeros(2, 2)
    partition = Partition.from_peft({"bert.q.weight": value, f"bert.q.{part}": value})
    assert labels(partition, captured({name: value.clone()})) == {name: "provider"}


def test_modules_to_save_are_private():
    value = torch.zeros(2, 2)
    name = "base_model.model.classifier.modules_to_save.default.weight"
    partition = Partition.from_peft({"classifier.weight": value})
    assert labels(partition, captured({name: value.clone()})) == {name: "provider"}


def test_from_peft_wants_an_adapter():
    with pytest.raises(PartitionError, match="no PEFT adapter"):
        Partition.from_peft(weights(*NAMES)).label(captured(weights(*NAMES)))


@pytest.mark.parametrize("rule", ["embeddings.weight", "decoder.weight"])
def test_tied_weights_are_one_tensor(rule):
    """A rule for either name decides for both."""
    model = captured(weights("embeddings.weight"), aliases={"decoder.weight": "embeddings.weight"})
    assert labels(Partition.from_rules({"public": [rule]}), model) == {"embeddings.weight": "public"}


def test_rules_that_disagree_on_tied_weights_are_refused():
    model = captured(weights("embeddings.weight"), aliases={"decoder.weight": "embeddings.weight"})
    rules = Partition.from_rules({"public": ["embeddings.*"], "private": ["decoder.*"]})
    with pytest.raises(PartitionError, match="one tied tensor"):
        rules.label(model)


def test_a_tied_weight_is_found_in_the_base_under_its_other_name():
    value = torch.randn(3, 2)
    model = captured({"embeddings.weight": value}, aliases={"lm_head.decoder.weight": "embeddings.weight"})
    assert labels(Partition.from_base({"lm_head.decoder.weight": value}), model) == {"embeddings.weight": "public"}


def test_explicit_rules_win_over_the_base():
    base = weights(*NAMES)
    partition = Partition.from_base(base).with_rules({"private": ["encoder.layer.0.*"]})
    assert labels(partition, captured(base))["encoder.layer.0.weight"] == "provider"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"public": ["encoder.*"], "private": ["*.weight"]}, "both public and private"),
        ({"public": ["decoder.*"]}, "matches no tensor"),
        ({"public": "encoder.*"}, "not a list"),
        ({"publik": ["encoder.*"]}, "unknown key"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules, message):
    with pytest.raises(PartitionError, match=message):
        Partition.from_rules(rules).label(captured(weights(*NAMES)))


def test_rules_come_from_a_toml_file(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text('public = ["encoder.*"]\n')
    assert labels(Partition.from_rules(file), captured(weights(*NAMES)))["encoder.layer.0.bias"] == "public"
    file.write_text("public = [")
    with pytest.raises(PartitionError, match="not TOML"):
        Partition.from_rules(file)


def test_the_base_of_another_architecture_is_refused():
    with pytest.raises(PartitionError, match="does not match"):
        check_base(captured(weights(*NAMES)), Partition.from_base(weights("h.0.attn.w", "wte.weight")))


def test_the_base_of_another_size_is_refused():
    base = {name: torch.randn(5, 5) for name in NAMES}
    with pytest.raises(PartitionError, match="another shape"):
        check_base(captured(weights(*NAMES)), Partition.from_base(base))


def test_a_resized_head_is_no_reason_to_refuse():
    base = weights(*NAMES) | {"classifier.weight": torch.randn(2, 2)}
    model = captured(weights(*NAMES) | {"classifier.weight": torch.randn(7, 2)})
    check_base(model, Partition.from_base(base))
    assert labels(Partition.from_base(base), model)["classifier.weight"] == "provider"


@pytest.mark.parametrize(
    ("value", "visibility"),
    [
        (torch.arange(6)[None], "public"),
        (torch.zeros(1, 6, dtype=torch.int64), "public"),
        (torch.tensor([3, 1, 4, 1, 5]), "provider"),
        (torch.arange(6.0), "provider"),
    ],
    ids=["positions", "token types", "learned integers", "floats"],
)
def test_buffers_that_no_checkpoint_holds(value, visibility):
    model = captured({"embeddings.ids": value}, kinds={"embeddings.ids": "non_persistent_buffer"})
    assert labels(Partition.all_private(), model) == {"embeddings.ids": visibility}


def test_a_persistent_buffer_needs_the_base():
    model = captured({"embeddings.ids": torch.arange(6)}, kinds={"embeddings.ids": "buffer"})
    assert labels(Partition.all_private(), model) == {"embeddings.ids": "provider"}


def test_bases_come_from_modules_files_and_folders(tmp_path):
    module = torch.nn.Linear(2, 3)
    model = captured({"weight": module.weight.detach().clone(), "bias": torch.zeros(3)})
    save_file(dict(module.state_dict()), tmp_path / "model.safetensors")
    for base in (module, tmp_path, tmp_path / "model.safetensors"):
        assert labels(Partition.from_base(base), model) == {"weight": "public", "bias": "provider"}


@pytest.mark.parametrize("content", [None, b"not safetensors"], ids=["missing", "corrupt"])
def test_a_base_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(PartitionError):
        Partition.from_base(tmp_path)


ADAPTER = "base_model.model.bert.q.lora_A.default.weight"
SAVED = "base_model.model.classifier.modules_to_save.default.weight"


@pytest.mark.parametrize("glob", ["*", "*lora_*", ADAPTER])
def test_a_public_rule_opens_no_adapter(glob):
    model = captured(weights(ADAPTER, SAVED, "base_model.model.bert.q.base_layer.weight"))
    evidence = Partition.from_rules({"public": [glob]}).label(model)
    assert labels_of(evidence)[ADAPTER] == labels_of(evidence)[SAVED] == "provider"
    (line,) = notes(evidence)
    assert "--open-adapter" in line and ADAPTER in line


def test_an_adapter_is_opened_by_a_rule_of_its_own(tmp_path):
    model = captured(weights(ADAPTER, SAVED))
    file = tmp_path / "rules.toml"
    file.write_text('open_adapters = ["*lora_A*"]\n')
    for partition in (Partition.from_rules(file), Partition.from_base(weights(ADAPTER)).with_rules(file)):
        evidence = partition.label(model)
        assert labels_of(evidence) == {ADAPTER: "public", SAVED: "provider"}
        assert notes(evidence) == [f"1 tensor of the adapter is public, since --open-adapter names it ({ADAPTER})"]
    with pytest.raises(PartitionError, match="no tensor of an adapter"):
        Partition.from_rules({"open_adapters": ["*bert.k*"]}).label(model)


def test_a_private_rule_wins_over_an_opened_adapter():
    rules = {"open_adapters": ["*lora_A*"], "private": ["*lora_A*"]}
    assert labels(Partition.from_rules(rules), captured(weights(ADAPTER)))[ADAPTER] == "provider"


def test_a_rule_that_publishes_what_differs_from_the_base_is_noted():
    base = weights(*NAMES)
    changed = dict(base) | {NAMES[0]: base[NAMES[0]] + 1}
    evidence = Partition.from_base(base).with_rules({"public": ["encoder.*"]}).label(captured(changed))
    reasons = {e.tensor: e.reason for e in evidence}
    assert reasons[NAMES[0]] == "explicit rule, although it differs from the base"
    assert reasons[NAMES[1]] == "explicit rule"
    assert notes(evidence) == [f"a rule makes 1 tensor public, although the base does not have it ({NAMES[0]})"]


def checked(partition, model):
    check_published(model, partition, partition.label(model))


@pytest.mark.parametrize("rules", [None, {"public": ["*"]}], ids=["base", "rule"])
def test_nothing_private_must_be_said(rules):
    base = weights(*NAMES)
    partition = Partition.from_base(base) if rules is None else Partition.from_rules(rules)
    with pytest.raises(PartitionError, match=r"nothing would stay private: .* all 3 weights"):
        checked(partition, captured(base))
    checked(replace(partition, all_public=True), captured(base))


def test_a_model_without_weights_has_nothing_to_keep_private():
    checked(Partition.from_base(weights(*NAMES)), captured({}))


HEADS = {
    "BertForSequenceClassification": ("bert.encoder.w", "classifier.weight"),
    "DistilBertForSequenceClassification": ("distilbert.transformer.w", "pre_classifier.weight"),
    "BertForQuestionAnswering": ("bert.encoder.w", "qa_outputs.bias"),
    "Mine": ("encoder.w", "classifier.out.weight"),
}


@pytest.mark.parametrize(("architecture", "names"), HEADS.items(), ids=HEADS)
def test_a_base_with_the_head_of_the_task_is_refused(architecture, names):
    backbone, head = names
    tensors = weights(backbone, head, f"{backbone}.other")
    base = dict(tensors) | {f"{backbone}.other": torch.zeros(3, 2)}
    model = captured(tensors, architecture=architecture)
    with pytest.raises(PartitionError, match=f"is no open checkpoint: it holds {head}"):
        checked(Partition.from_base(base), model)
    checked(Partition.from_base({n: t for n, t in base.items() if n != head}), model)
    checked(Partition.from_base(base).with_rules({"private": [head]}), model)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertModel", "GPT2LMHeadModel"])
def test_heads_of_pre_training_may_be_public(architecture):
    model = captured(weights("bert.w", "cls.predictions.bias"), architecture=architecture)
    assert not is_task_head("cls.predictions.bias", model)


def test_a_constant_that_a_rule_makes_private_is_hidden():
    ids = torch.arange(4)
    model = captured({"ids": ids}, kinds={"ids": "non_persistent_buffer"}, implied={"ids": "positions"})
    graph = model.graph.with_nodes([replace(n, op="constant") if n.name == "ids" else n for n in model.graph])
    model = replace(model, graph=graph)
    assert labels(Partition.all_private(), model) == {"ids": "public"}
    evidence = Partition.from_rules({"private": ["ids"]}).label(model)
    assert [n.op for n in hide(graph, labels_of(evidence)) if n.name == "ids"] == ["param"]
    assert hide(graph, {"ids": "public"}) == graph
