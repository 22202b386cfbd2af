"""Marill's side of fine-tuning: models that need little MPC (arXiv 2408.03561). See docs/marill.md."""

from mpcc.marill.approximations import approximate
from mpcc.marill.distillation import DistillOptions, distill
from mpcc.marill.freezing import freeze_layers
from mpcc.marill.head_merging import merge_heads
from mpcc.marill.lora import add_lora

__all__ = ["DistillOptions", "add_lora", "approximate", "distill", "freeze_layers", "merge_heads"]
