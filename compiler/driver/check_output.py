"""Does the model have what is to be told of it? Asked of a captured model, before anything is rewritten."""

from __future__ import annotations

from mpcc.compiler.driver.options import Options
from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.types import LABEL, LOGITS

# what a Hugging Face config calls the kinds of heads whose largest logit is no answer -> why
_NO_LABEL = {
    "regression": "the model's config says regression: its outputs are numbers, not logits of classes",
    "multi_label_classification": "the model's config says that an input may have several labels: "
    "the largest logit is not the answer, and the signs of all logits are not what --output label reveals",
}


def check_output(model: Captured, options: Options) -> None:
    """Refuse `output="label"` for a model in which the largest logit is not the answer.

    Raises:
        MpccError: regression, several labels at once, or results that are no logits.
    """
    if options.output != LABEL:
        return
    config, names = model.config or {}, [name for name, _ in model.graph.outputs]
    why = _NO_LABEL.get(str(config.get("problem_type")))
    if why is None and LOGITS not in names and (model.config is not None or len(names) > 1):
        why = f"the model has no logits; its results are: {', '.join(names)}"
    if why is not None:
        raise MpccError(why, todo="leave out --output label; --output-frac-bits reveals less of numbers")
