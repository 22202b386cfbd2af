"""A last look at what a partition publishes: a wrong base or a wide rule must not give the model away.

The base is the open checkpoint that a model was fine-tuned from. Where it leaves nothing private, or holds the very
head that was trained for the task, it is no open checkpoint but the fine-tuned model or a copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.errors import PartitionError
from mpcc.compiler.findings import Evidence
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.names import unwrapped
from mpcc.compiler.frontend.partition import ADAPTER_STAYS, DIFFERS, IMPLIED, OPENED, PUBLIC, Partition

_SAY_SO = "name the right base or narrower rules, or say --all-public (all_public=True) if that is meant"
# classes of transformers whose head is trained before any task
_PRETRAINING = (
    "ForPreTraining",
    "ForMaskedLM",
    "ForCausalLM",
    "LMHeadModel",
    "ForSeq2SeqLM",
    "ForConditionalGeneration",
)
# heads in other models, by a part of the tensor's name
_HEADS = frozenset({"classifier", "pre_classifier", "score", "qa_outputs", "classification_head", "logits_proj"})


def check_published(model: Captured, partition: Partition, evidence: Sequence[Evidence]) -> None:
    """Refuse a partition that leaves no weight private, or whose base holds the head of the task.

    Raises:
        PartitionError: it does, and `all_public` was not said.
    """
    weights = [e for e in evidence if not e.reason.startswith(IMPLIED)]
    if partition.all_public or not weights:
        return
    if all(e.visibility == PUBLIC for e in weights):
        raise PartitionError(
            f"nothing would stay private: {_source(partition)} all {len(weights)} weights of the model public",
            todo=_SAY_SO,
        )
    for e in weights:
        if e.visibility == PUBLIC and e.reason.startswith("byte-equal") and is_task_head(e.tensor, model):
            raise PartitionError(
                f"the base {partition.base_name} is no open checkpoint: it holds {e.tensor}, a head that was trained "
                "for the task",
                todo=_SAY_SO,
            )


def _source(partition: Partition) -> str:
    if partition.base is None:
        return "the rules make"
    return f"the base {partition.base_name} makes" if not partition.public else "the base and the rules make"


def is_task_head(name: str, model: Captured) -> bool:
    """Whether a tensor lies outside of what pre-training trains: outside the backbone of a model class for a task."""
    import transformers

    plain, known = unwrapped(name), model.architecture
    cls = getattr(transformers, known, None) if known.isidentifier() else None
    if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
        backbone = f"{cls.base_model_prefix}."
        if "For" not in known or known.endswith(_PRETRAINING):
            return False
        if any(unwrapped(n).startswith(backbone) for n in model.tensors):
            return not plain.startswith(backbone)
    return not _HEADS.isdisjoint(plain.split("."))


def notes(evidence: Sequence[Evidence]) -> list[str]:
    """What the provider should know about its rules, a line each."""
    wording = {
        DIFFERS: "a rule makes {} public, although the base does not have it ({})",
        ADAPTER_STAYS: "a rule matches {} of the adapter, which stays private unless --open-adapter names it ({})",
        OPENED: "{} of the adapter is public, since --open-adapter names it ({})",
    }
    lines = []
    for reason, line in wording.items():
        found = [e.tensor for e in evidence if e.reason == reason]
        if found:
            lines.append(line.format("1 tensor" if len(found) == 1 else f"{len(found)} tensors", _some(found)))
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
