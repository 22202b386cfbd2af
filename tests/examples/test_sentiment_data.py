"""The sentiment example: its split, its inputs, and the promise that the frozen tensors stay the base's."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from examples.sentiment import data, model, reviews, train
from mpcc.compiler.errors import MpccError

FROZEN_LAYERS = 4

try:
    data.package_folder(data.DATA_PACKAGE)
    data.package_folder(data.MODEL_PACKAGE)
except FileNotFoundError as reason:
    pytest.skip(str(reason), allow_module_level=True)


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.load_split()


def test_split_is_disjoint_and_complete(split: data.Split) -> None:
    train_texts, held_out_texts = ({review.text for review in part} for part in (split.train, split.held_out))
    assert (len(train_texts), len(held_out_texts)) == (7530, 1000)
    assert not train_texts & held_out_texts


def test_split_does_not_depend_on_the_order_of_the_file(split: data.Split) -> None:
    assert data.split_reviews(data.load_reviews()[::-1]) == split


def test_another_seed_gives_another_split(split: data.Split) -> None:
    assert set(data.split_reviews(data.load_reviews(), seed=1).held_out) != set(split.held_out)


def test_labels_are_balanced(split: data.Split) -> None:
    assert Counter(review.label for review in split.train) == {0: 3765, 1: 3765}
    assert Counter(review.label for review in split.held_out) == {0: 500, 1: 500}


def test_inputs_have_the_fixed_length_and_a_batch_of_one(split: data.Split) -> None:
    long_text = " ".join(review.text for review in split.train[:10])
    for item in data.model_inputs([long_text, *(review.text for review in split.held_out[:50])]):
        ids, mask = torch.tensor(item["input_ids"]), torch.tensor(item["attention_mask"])
        assert ids.shape == mask.shape == (1, data.SEQUENCE_LENGTH)
        assert torch.equal(mask, (ids != 0).long())


def test_few_reviews_are_truncated(split: data.Split) -> None:
    encodings = data.load_tokenizer(512, pad=False).encode_batch([review.text for review in split.train])
    too_long = sum(len(encoding.ids) > data.SEQUENCE_LENGTH for encoding in encodings)
    assert too_long < 0.01 * len(encodings)


def test_calibration_is_taken_from_the_training_reviews(tmp_path: Path, split: data.Split) -> None:
    reviews.write_all(tmp_path, count=2, calibration=3)
    written = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()}
    assert written["reviews.json"] == data.model_inputs([review.text for review in split.held_out[:2]])
    assert written["calibration.json"] == data.model_inputs([review.text for review in split.train[:3]])
    assert [row["label"] for row in written["reviews.labels.json"]] == [item.label for item in split.held_out[:2]]


def test_prefix_and_suffix_together_are_the_model(split: data.Split) -> None:
    classifier = model.load_classifier(FROZEN_LAYERS).train(False)
    chosen = split.train[:4]
    with torch.no_grad():
        examples = train.encode(classifier, FROZEN_LAYERS, chosen, data.SEQUENCE_LENGTH, "prefix")
        halves = model.suffix(classifier, FROZEN_LAYERS, examples)
        inputs = data.model_inputs([review.text for review in chosen])
        whole = [classifier(**{name: torch.tensor(rows) for name, rows in item.items()}).logits for item in inputs]
    torch.testing.assert_close(halves, torch.cat(whole))


def test_training_leaves_the_frozen_tensors_byte_equal(tmp_path: Path, split: data.Split) -> None:
    classifier = model.load_classifier(FROZEN_LAYERS)
    examples = train.encode(classifier, FROZEN_LAYERS, split.train[:8], 16, "prefix")
    train.fit(classifier, examples, train.Options(epochs=1, batch_size=8))
    train.save(classifier, tmp_path)

    frozen = model.frozen_names(classifier)
    assert len(frozen) == 5 + FROZEN_LAYERS * 16
    assert model.changed_tensors(frozen, tmp_path, data.base_folder()) == []
    learnt = "bert.encoder.layer.4.intermediate.dense.weight"
    assert model.changed_tensors([learnt], tmp_path, data.base_folder()) == [learnt]


def test_a_model_is_reused_only_with_the_same_options(tmp_path: Path) -> None:
    options = train.Options()
    assert train.read_record(tmp_path, options) is None
    (tmp_path / train.MODEL_FOLDER).mkdir()
    (tmp_path / train.MODEL_FOLDER / train.WEIGHTS_FILE).touch()
    (tmp_path / train.RECORD_FILE).write_text(json.dumps({"digest": options.digest()}), encoding="utf-8")
    assert train.read_record(tmp_path, options) is not None
    assert train.read_record(tmp_path, train.Options(seed=1)) is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    name, wanted = "model/vocab.txt", data.BASE_FILES["model/vocab.txt"]
    (tmp_path / "model").mkdir()
    with pytest.raises(MpccError, match=r"cannot read model/vocab\.txt"):
        data.check_files(tmp_path, {name: wanted})
    (tmp_path / name).write_bytes((data.base_folder() / "vocab.txt").read_bytes())
    data.check_files(tmp_path, {name: wanted})
    (tmp_path / name).write_bytes(b"[PAD]\n")
    with pytest.raises(MpccError, match=r"model/vocab\.txt is another file: its SHA-256 is [0-9a-f]{64}") as caught:
        data.check_files(tmp_path, {name: wanted})
    assert "--require-hashes" in str(caught.value)
