"""The door: compile a model, load a program, save a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mpcc.backends.mp_spdz.dialects import dialect_of
from mpcc.compiler.bundle.manifest import input_specs
from mpcc.compiler.bundle.read import load as load_bundle
from mpcc.compiler.bundle.read import pack
from mpcc.compiler.cost import Network, network_of
from mpcc.compiler.driver.pipeline import Options, check_options, compile_model
from mpcc.compiler.driver.savings import measured_savings
from mpcc.compiler.frontend.capture import Captured, Inputs, capture, save_model
from mpcc.compiler.frontend.partition import Partition
from mpcc.inputs import prepare_inputs, random_inputs
from mpcc.program import Program

Progress = Callable[[str], None]


def compile(
    model: object,
    example_inputs: Inputs | None = None,
    partition: Partition | None = None,
    calibration: Sequence[Mapping[str, object]] | None = None,
    *,
    protocol: str = "ring",
    network: str | Path | Network = "lan",
    approximations: Mapping[str, str] | None = None,
    output: str = "logits",
    sequence_length: int | None = None,
    batch_size: int = 1,
    public_inputs: Iterable[str] = (),
    profile: str = "default",
    failure_bits: int | None = None,
    frac_bits: int | None = None,
    truncation: str | None = None,
    base: str | Path | None = None,
    calibrate_random: int = 0,
    allow_pickle: bool = False,
    truncate: bool = False,
    recover_lora: int | float | None = None,
    savings: bool = False,
    all_public: bool = False,
    progress: Progress | None = None,
) -> Program:
    """Compile a model to a secure program.

    Args:
        model: nn.Module (also PEFT), ExportedProgram, or the path of one; see `mpcc.compiler.frontend.capture`.
        example_inputs: tensors that fix the shapes; or give `sequence_length` and `batch_size` for a text model.
        partition: which weights are public. Default: with `base`, what is byte-equal to it; otherwise none.
        calibration: inputs like the real ones, for ranges (as `Program.run` takes them, texts included).
        network: what the program is to be fast on, "lan", "wan", "local" or a TOML file: it decides between forms that
            trade rounds for bytes.
        approximations: e.g. {"gelu": "quad"}; the default forms are faithful.
        output: "logits" (the model's first output) or "all".
        public_inputs: inputs that every party may learn, e.g. ["attention_mask"].
        profile: "safe" (no truncation can fail, widest ranges), "default" (local truncations where the failure budget
            allows) or "fast" (tight calibrated ranges, a larger failure budget).
        failure_bits: the budget of an inference: truncations fail with probability at most 2^-failure_bits; None for
            what the profile says (default 20, fast 16).
        frac_bits: fractional bits of activations; None for what the profile says.
        truncation: "probabilistic" (cheap) or "nearest" (leaks nothing); None for the protocol's cheaper one, which is
            "nearest" for ps-rep-ring and sy-rep-ring only.
        base: folder of the open base model.
        calibrate_random: use that many random inputs besides `calibration`.
        truncate: cut calibration texts that are longer than the program.
        recover_lora: find low-rank updates of the base's weights: the rank (a whole number), or the largest error of an
            update as a share of it (below 1); with a base only.
        savings: note what each pass saves, which takes as long again for each of them.
        all_public: it is meant that the base or the rules leave no weight private, or not even the task's head.
        progress: called with the name of each stage as it begins.

    Raises:
        MpccError: what is wrong with the model, the partition, the ranges or the options, in one sentence.
    """
    report = progress or (lambda name: None)
    options = Options(
        protocol=protocol,
        network=network_of(network),
        output=output,
        frac_bits=frac_bits,
        truncation=truncation or dialect_of(protocol).truncation,
        profile=profile,
        failure_bits=failure_bits,
        approximations=approximations,
        public_inputs=tuple(public_inputs),
        recover_lora=recover_lora,
    )
    check_options(options)  # before any work is done
    report("capture")
    captured = capture(
        model,
        example_inputs,
        base=base,
        sequence_length=sequence_length,
        batch_size=batch_size,
        allow_pickle=allow_pickle,
    )
    if partition is None:
        partition = _default_partition(captured, base)
    if all_public:
        partition = replace(partition, all_public=True)
    samples = _samples(captured, calibration, calibrate_random, truncate)
    compiled = compile_model(captured, partition, samples, options, report)
    found = measured_savings(captured, partition, samples, compiled, report) if savings else ()
    return Program(pack(captured, compiled, found))


def load(path: str | Path, roles: Iterable[str] | None = None) -> Program:
    """Read a program that `Program.save` wrote; `roles` limits what is read to, e.g., {"client"}."""
    return Program(load_bundle(path, roles))


def save(
    model: torch.nn.Module,
    path: str | Path,
    example_inputs: Inputs | None = None,
    tokenizer: object | None = None,
    *,
    sequence_length: int | None = None,
) -> None:
    """Write a model so that `mpcc compile` takes it without running code from the file; see `save_model`."""
    save_model(model, path, example_inputs, tokenizer, sequence_length=sequence_length)


def _default_partition(captured: Captured, base: str | Path | None) -> Partition:
    if base is None:
        return Partition.all_private()
    return Partition.from_peft(base) if captured.peft is not None else Partition.from_base(base)


def _samples(
    captured: Captured, calibration: Sequence[Mapping[str, object]] | None, random: int, truncate: bool
) -> list[dict[str, torch.Tensor]]:
    specs = input_specs(captured)
    given = [prepare_inputs(c, specs, captured.tokenizer_json, truncate=truncate) for c in calibration or ()]
    return given + random_inputs(specs, random)
