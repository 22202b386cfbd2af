"""A BERT classifier in two halves: a frozen prefix that is evaluated once, and a suffix that is trained."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer
from transformers.utils import logging

from examples.sentiment.data import LABEL_NAMES, base_folder

WEIGHTS_FILE = "model.safetensors"
PREFIX = "bert."


@dataclass(frozen=True)
class Example:
    """What the prefix makes of one review: hidden states (tokens, width), without padding, and the label."""

    hidden: Tensor
    label: int


def load_classifier(frozen_layers: int) -> BertForSequenceClassification:
    """The base with a new classifier; embeddings and the first ``frozen_layers`` layers do not learn."""
    names = dict(enumerate(LABEL_NAMES))
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(
        base_folder(),
        dtype=torch.float32,
        id2label=names,
        label2id={name: label for label, name in names.items()},
    )
    for module in prefix_modules(model, frozen_layers):
        module.requires_grad_(False)
    return model


def prefix_modules(model: BertForSequenceClassification, frozen_layers: int) -> list[nn.Module]:
    """Embeddings and the frozen layers."""
    return [model.bert.embeddings, *model.bert.encoder.layer[:frozen_layers]]


@torch.no_grad()
def prefix(model: BertForSequenceClassification, frozen_layers: int, batch: Sequence[Sequence[int]]) -> list[Tensor]:
    """Hidden states after the frozen layers, one tensor per token sequence. The model has to be in eval mode."""
    sequences = [torch.tensor(ids) for ids in batch]
    hidden = model.bert.embeddings(nn.utils.rnn.pad_sequence(sequences, batch_first=True))
    mask = additive_mask([len(ids) for ids in sequences])
    for layer in model.bert.encoder.layer[:frozen_layers]:
        hidden = layer(hidden, mask)
    return [row[: len(ids)].clone() for row, ids in zip(hidden, sequences, strict=True)]


def suffix(model: BertForSequenceClassification, frozen_layers: int, batch: Sequence[Example]) -> Tensor:
    """Logits from cached hidden states: the trained layers, the pooler and the classifier."""
    hidden = nn.utils.rnn.pad_sequence([example.hidden for example in batch], batch_first=True)
    mask = additive_mask([len(example.hidden) for example in batch])
    *layers, last = model.bert.encoder.layer[frozen_layers:]
    for layer in layers:
        hidden = layer(hidden, mask)
    assert model.bert.pooler is not None
    logits: Tensor = model.classifier(model.dropout(model.bert.pooler(first_token(last, hidden, mask))))
    return logits


def first_token(layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """The layer's output (batch, 1, width) for the first token, the only one that the pooler reads."""
    assert isinstance(layer, BertLayer)
    attention = layer.attention.self
    query, key, value = (
        linear(states).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
        for linear, states in ((attention.query, hidden[:, :1]), (attention.key, hidden), (attention.value, hidden))
    )
    dropout = attention.dropout.p if layer.training else 0.0
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    attended = layer.attention.output(context.transpose(1, 2).flatten(2), hidden[:, :1])
    output: Tensor = layer.feed_forward_chunk(attended)  # type: ignore[no-untyped-call]
    return output


def additive_mask(lengths: Sequence[int]) -> Tensor:
    """Attention mask (batch, 1, 1, tokens): 0 for a token, a huge negative number for padding."""
    padding = torch.arange(max(lengths))[None, :] >= torch.tensor(lengths)[:, None]
    return torch.zeros(padding.shape).masked_fill(padding, torch.finfo(torch.float32).min)[:, None, None, :]


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def frozen_names(model: nn.Module) -> list[str]:
    """The names of the parameters that do not learn."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def changed_tensors(names: Iterable[str], folder: Path, base: Path) -> list[str]:
    """Those of the named tensors whose bytes in the saved model differ from the base checkpoint's."""
    return list(_changed(names, folder / WEIGHTS_FILE, base / WEIGHTS_FILE))


def _changed(names: Iterable[str], saved: Path, base: Path) -> Iterator[str]:
    with safe_open(saved, "pt") as ours, safe_open(base, "pt") as theirs:
        for name in names:
            if _bytes(ours.get_tensor(name)) != _bytes(theirs.get_tensor(name.removeprefix(PREFIX))):
                yield name


def _bytes(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return tensor.dtype, tensor.shape, tensor.contiguous().numpy().tobytes()
