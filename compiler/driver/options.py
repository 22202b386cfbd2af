"""Everything that the user may choose, with its defaults: the command line and `mpcc.compile` both fill `Options`.

This file loads nothing else: the command line needs it to say what there is. check_options.py refuses what is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.compiler.errors import MpccError
from mpcc.passes import GRAPH, RING

if TYPE_CHECKING:
    from mpcc.compiler.cost import Network

EVERY_PASS = tuple(dict.fromkeys(entry.name for entry in (*GRAPH, *RING)))
# What can be left out, to see what it saves.
SWITCHABLE = tuple(dict.fromkeys(entry.name for entry in (*GRAPH, *RING) if entry.can_be_left_out))


@dataclass(frozen=True)
class Profile:
    """Fixed-point formats; `lean` chooses local truncations where the failure budget of 2^-failure_bits allows."""

    frac_bits: int
    weight_frac_bits: int
    lean: bool = False
    wide: bool = False
    tight: bool = False
    failure_bits: int = 20
    inner_frac_bits: int = 20


PROFILES: Mapping[str, Profile] = {
    "safe": Profile(16, 16, wide=True),
    "default": Profile(13, 15, lean=True, inner_frac_bits=17),
    "fast": Profile(13, 15, lean=True, tight=True, failure_bits=16, inner_frac_bits=16),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices of one compilation; `check_options` fills in what is left open.

    What is captured: `base` (folder of the open base model), `sequence_length` and `batch_size` of a text model,
    `allow_pickle` (run the code in a pickled model).

    Calibration: `calibrate_random` (so many random inputs besides those given), `truncate` (cut texts that are longer
    than the program).

    The program: `protocol`; `network`, what it is to be fast on ("lan", "wan", "local" or a TOML file: it decides
    between forms that trade rounds for bytes); `output`, "logits" (the model's first output), "label" (the position of
    the largest logit of each row, and no logit) or "all"; `output_frac_bits`, fractional bits of what is revealed: what
    stands below them is rounded away inside MPC, which adds an error of at most 2^-(output_frac_bits + 1);
    `public_inputs`, those that every party may learn; `all_public`, it is meant that the base or the rules leave no
    weight private, or not even the task's head; `approximations` such as {"gelu": "quad"}, the default forms
    being faithful; `recover_lora`, find low-rank updates of the base's weights: the rank (a whole number), or the
    largest error of an update as a share of it (below 1).

    Its numbers: `profile`, "safe" (no truncation can fail, widest ranges), "default" (local truncations where the
    failure budget allows) or "fast" (tight calibrated ranges, a larger failure budget); `failure_bits`, the budget:
    truncations fail with probability at most 2^-failure_bits per inference; `frac_bits` and `weight_frac_bits`,
    fractional bits of activations and weights; `truncation`, "probabilistic" (cheap) or "nearest" (leaks nothing). None
    stands for what the profile says, no truncation for the protocol's cheaper one, which is "nearest" for ps-rep-ring
    and sy-rep-ring only.

    For debugging (docs/debugging.md): `savings`, note what each pass saves, which takes as long again for each of them;
    `without`, passes to leave out; `print_after`, passes after which the program is printed to stderr ("all" for every
    one); `time_passes`, print the CPU seconds of each.
    """

    base: str | Path | None = None
    sequence_length: int | None = None
    batch_size: int = 1
    allow_pickle: bool = False
    calibrate_random: int = 0
    truncate: bool = False
    protocol: str = "ring"
    network: str | Path | Network = "lan"
    output: str = "logits"
    output_frac_bits: int | None = None
    public_inputs: tuple[str, ...] = ()
    all_public: bool = False
    approximations: Mapping[str, str] | None = None
    recover_lora: int | float | None = None
    profile: str = "default"
    failure_bits: int | None = None
    frac_bits: int | None = None
    weight_frac_bits: int | None = None
    truncation: str = ""
    savings: bool = False
    without: frozenset[str] = frozenset()
    print_after: frozenset[str] = frozenset()
    time_passes: bool = False

    @classmethod
    def of(cls, **choices: object) -> Options:
        """Options by keyword.

        Raises:
            MpccError: there is no such option.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(choices) - known):
            raise MpccError(f"there is no option {unknown[0]!r}", todo=f"choose from: {', '.join(sorted(known))}")
        return cls(**choices)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """Callers may give lists, and None for a truncation that is left open."""
        object.__setattr__(self, "truncation", self.truncation or "")
        object.__setattr__(self, "public_inputs", tuple(self.public_inputs))
        object.__setattr__(self, "without", frozenset(self.without))
        object.__setattr__(self, "print_after", frozenset(self.print_after))

    @property
    def failure_budget(self) -> float:
        """The probability with which a truncation of one inference may fail."""
        bits = PROFILES[self.profile].failure_bits if self.failure_bits is None else self.failure_bits
        return 2.0**-bits
