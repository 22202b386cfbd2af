"""The door to the compiler: compile a model, save a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mpcc.compiler.bundle.session import SessionFacts
from mpcc.compiler.bundle.signature import input_specs
from mpcc.compiler.driver.check_options import check_options
from mpcc.compiler.driver.generation import GenerationShape
from mpcc.compiler.driver.generation import compile_generation as compile_steps
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pack import pack
from mpcc.compiler.driver.pipeline import compile_model
from mpcc.compiler.driver.savings import measured_savings
from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured, capture
from mpcc.compiler.frontend.export import Inputs, save_model
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.frontend.sources import load as load_model
from mpcc.generation import Generator
from mpcc.inputs import encoded, prepare_inputs, random_inputs, tokenizer_of
from mpcc.program import Program

Progress = Callable[[str], None]


def compile(
    model: object,
    example_inputs: Inputs | None = None,
    partition: Partition | None = None,
    calibration: Sequence[Mapping[str, object]] | None = None,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> Program:
    """Compile a model to a secure program.

    Args:
        model: nn.Module (also PEFT), ExportedProgram, or the path of one; see `mpcc.compiler.frontend.capture`.
        example_inputs: tensors that fix the shapes; or give `sequence_length` and `batch_size` for a text model.
        partition: which weights are public. Default: with `base`, what is byte-equal to it; otherwise none.
        calibration: inputs like the real ones, for ranges (as `Program.run` takes them, texts included).
        options: all other choices as one object; or give them by keyword.
        progress: called with the name of each pass and step as it begins.
        choices: the fields of `mpcc.Options`, whose docstring explains them: protocol="ring", network="lan",
            output="logits", profile="default", sequence_length, batch_size, base, public_inputs, all_public,
            approximations, frac_bits, truncation, failure_bits, recover_lora, calibrate_random, truncate, ...

    Raises:
        MpccError: what is wrong with the model, the partition, the ranges or the options, in one sentence.
    """
    if options is not None and choices:
        raise MpccError(f"options were given twice: as an object, and {min(choices)} by keyword")
    options = check_options(options or Options.of(**choices))  # before any work is done
    report = progress or (lambda name: None)
    report("capture")
    captured = capture(
        model,
        example_inputs,
        base=options.base,
        sequence_length=options.sequence_length,
        batch_size=options.batch_size,
        allow_pickle=options.allow_pickle,
    )
    if partition is None:
        partition = _default_partition(captured, options.base)
    if options.all_public:
        partition = replace(partition, all_public=True)
    samples = _samples(captured, calibration, options.calibrate_random, options.truncate)
    compiled = compile_model(captured, partition, samples, options, report)
    found = measured_savings(captured, partition, samples, compiled, report) if options.savings else ()
    return Program(pack(captured, compiled, found))


def compile_generation(
    model: object,
    calibration: Sequence[str | Sequence[int]],
    partition: Partition | None = None,
    *,
    prompt_tokens: int,
    cache_tokens: int,
    draft_tokens: int = 0,
    options: Options | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> Generator:
    """Compile a causal language model to the programs of a session that generates.

    Args:
        model: a model of transformers, or the folder of one.
        calibration: texts like the real prompts and answers, or token ids, for ranges.
        partition: which weights are public. Default: with `base`, what is byte-equal to it; otherwise none.
        prompt_tokens: the longest prompt; shorter ones are padded, and their length stays secret.
        cache_tokens: entries for prompt and answer together.
        draft_tokens: how many tokens a secure step may verify besides the one it gives in any case.
        options: all other choices as one object; or give them by keyword, as `compile` takes them.
        progress: called with the name of each pass and step as it begins.

    Raises:
        MpccError: what is wrong with the model, the partition, the ranges or the options, in one sentence.
    """
    if options is not None and choices:
        raise MpccError(f"options were given twice: as an object, and {min(choices)} by keyword")
    options = check_options(options or Options.of(**choices))
    loaded = load_model(model, base=options.base, allow_pickle=options.allow_pickle)
    if loaded.module is None:
        raise MpccError("an exported program cannot be compiled to generate", todo="give the model itself")
    if partition is None:
        partition = Partition.all_private() if options.base is None else Partition.from_base(options.base)
    shape = GenerationShape(prompt_tokens, cache_tokens, 1 + draft_tokens)
    texts = [_token_ids(text, loaded.tokenizer_json) for text in calibration]
    made = compile_steps(loaded.module, partition, texts, shape, options, progress or (lambda name: None))
    prefill, decode = (
        Program(pack(replace(captured, tokenizer_json=loaded.tokenizer_json), compiled))
        for captured, compiled in zip(made.captured, (made.prefill, made.decode), strict=True)
    )
    return Generator(prefill, decode, SessionFacts(shape.prompt, shape.cache, shape.tokens, _ends(loaded.module)))


def _token_ids(text: str | Sequence[int], tokenizer_json: str | None) -> torch.Tensor:
    ids = encoded(tokenizer_of(tokenizer_json), [text])[0].ids if isinstance(text, str) else list(text)
    if not ids:
        raise MpccError("a calibration text has no tokens")
    return torch.tensor(ids)


def _ends(model: torch.nn.Module) -> tuple[int, ...]:
    """The tokens that end an answer, as the model's own generation has it."""
    for owner in ("generation_config", "config"):
        found = getattr(getattr(model, owner, None), "eos_token_id", None)
        if isinstance(found, int):
            return (found,)
        if isinstance(found, (list, tuple)):
            return tuple(int(token) for token in found)
    return ()


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
    specs = input_specs(captured.graph, captured.config)
    given = [prepare_inputs(c, specs, captured.tokenizer_json, truncate=truncate) for c in calibration or ()]
    return given + random_inputs(specs, random)
