"""The passes of the compiler in their order. Read from top to bottom, GRAPH and then RING are what it does.

A pass is a pure function of its name in the file of its name (passes/graph, passes/ring); passes/calls.py says what
each of them is given. The manager (passes/manager.py) runs the lists and verifies after every pass that the program is
in the stage that the entry names: compiler/graph/verify.py and compiler/ring/verify.py say what holds in it.
This file imports nothing, so that the command line knows the passes without loading them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One entry: the pass, the stage it leaves the program in, why it stands here, whether it may be left out.

    The same pass may have several entries; `--print-after`, `--time-passes` and `--without` mean all of them.
    """

    name: str
    leaves: str
    because: str
    can_be_left_out: bool = False


# From the captured model to the region inside MPC. recover_lora comes before the list, where it is asked for: it
# changes which tensors the model has, and with them the evidence of who may read them, which label needs.
GRAPH = (
    Pass("assign_roles", "captured", "who gives an input is the user's word, not the model's"),
    Pass("declare_states", "captured", "states are leaves like inputs, and what is kept is an output like any other"),
    Pass("choose_outputs", "captured", "what nobody asked for need not be rewritten, let alone computed"),
    # Export writes masks and positions as long computations on constants. Each of the four makes work for the next,
    # and a fused mask leaves constants behind that decide more: hence a second round. Models need no third.
    Pass("fold_constants", "captured", "later passes look at the values of constants"),
    Pass("simplify", "captured", "fuse_attention looks for few patterns, not for every roundabout way to them"),
    Pass("fuse_attention", "captured", "while the products of attention still stand side by side"),
    Pass("simplify", "captured", "a mask that fusing made boolean may keep everything: then there is none"),
    Pass("fold_constants", "captured", "what fusing and simplifying left of masks"),
    Pass("simplify", "captured", "with the constants of the second round"),
    Pass("fuse_attention", "captured", "with masks that have become uniform only now"),
    Pass("simplify", "captured", "what the second fusing left"),
    Pass("fuse_norms", "captured", "with casts gone; before narrow_reads, which goes by single places", True),
    Pass("fuse_activations", "captured", "as fuse_norms; before change_model, which looks for GELU", True),
    Pass("pick_rows", "captured", "after fusing, which leaves attention whose queries can be picked"),
    Pass("narrow_reads", "captured", "after simplify, which shows what is read; before masks get another shape", True),
    Pass("simplify", "captured", "a narrowed read of a mask may be the mask of another layer: prepared once"),
    Pass("prepare_masks", "captured", "after narrow_reads, which tells masks by query from masks of one query"),
    Pass("group_heads", "captured", "after prepare_masks, which knows masks by head from others"),
    Pass("simplify", "captured", "layouts around queries in groups"),
    Pass("label", "labelled", "private_embedding asks where a look-up would run, merge_adapters whose a weight is"),
    Pass("private_embedding", "captured", "a look-up by a secret index has no other secure form"),
    Pass("merge_adapters", "captured", "before fold_affine, which takes what stands beside a product into its weight"),
    Pass("label", "labelled", "the last two made nodes without labels; change_model asks what runs inside MPC"),
    Pass("change_model", "labelled", "attention is fused by now, and ranges will be those of the chosen function"),
    Pass("check_secure", "labelled", "all is labelled, and the model is still as the user knows it"),
    Pass("fold_affine", "captured", "norms and products are final; it makes weights for hoist_prepared", True),
    Pass("label", "labelled", "what fold_affine made of weights belongs to their owner"),
    Pass("hoist_prepared", "prepared", "everything that weights alone decide is there now"),
    Pass("ranges", "ranged", "the values whose ranges are wanted are those that will be computed"),
    Pass("cut", "cut", "no pass after this one looks at what is outside MPC"),
    Pass("roll_layers", "rolled", "last, so that no other pass has to look into loops", True),
)

# From the lowered region to the ring program that is emitted. Where truncations may be local, compiler/driver/
# schedule.py runs the second half twice: once to see which stay safe, then with just these deferred.
RING = (
    Pass("merge_rescales", "requested", "requests for a scale are cheaper to move than truncations", True),
    Pass("ring_dead_code", "requested", "defer_rescales asks who reads a value: leave only true readers"),
    Pass("defer_rescales", "requested", "of the requests that are left; placed ones can no longer move", True),
    Pass("place_truncations", "placed", "every request is final"),
    Pass("absorb_factors", "placed", "placing turns requests for a larger scale into factors", True),
    Pass("ring_dead_code", "placed", "what was moved or absorbed leaves its old operands behind"),
    Pass("choose_truncations", "placed", "of truncations that exist; it looks at how large their arguments are", True),
)
