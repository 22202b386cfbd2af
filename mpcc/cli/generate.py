"""`mpcc generate`: private generation, all parties on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpcc.cli.console import note, stages
from mpcc.cli.options import JsonFlag, ProgramPath, TracebackFlag
from mpcc.compiler.errors import InputError, MpccError

if TYPE_CHECKING:
    from mpcc.generation import Generated, Generator
    from mpcc.sampling import Draft

_STAGES = 3
ENDED = {"end": "the model ended it", "stop": "a stop text came", "full": "the cache is full"}


def generate(
    program: ProgramPath,
    prompt: Annotated[str, typer.Option(help="The text to go on with; - for standard input.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 16,
    base: Annotated[Path | None, typer.Option(help="The open model's folder: it drafts tokens in clear.")] = None,
    draft: Annotated[
        int | None, typer.Option(min=0, help="Tokens to draft for a step; as many as were compiled for unless given.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most likely token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling, and of the emulator's truncation.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be given again.")] = None,
    engine: Annotated[str | None, typer.Option(help="mp-spdz, or emulator, which protects nothing.")] = None,
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Write on from a prompt that nobody else sees, by a model that nobody else has."""
    from mpcc.inputs import encoded
    from mpcc.loading import generates, load_generator
    from mpcc.runtime.engine import Options
    from mpcc.runtime.engines import DEFAULT, engine_named
    from mpcc.sampling import Sampler, no_draft

    if not generates(program):
        raise MpccError("the program does not generate", where=str(program), todo="run it: mpcc run")
    loaded = load_generator(program)
    chosen = engine_named(engine or DEFAULT, Options(seed=seed))
    if not chosen.keeps_states:
        raise MpccError(f"the {chosen.name} engine keeps no cache between the steps", todo="choose --engine mp-spdz")
    chosen.check()
    tokenizer = loaded.tokenizer
    text = sys.stdin.read() if prompt == "-" else prompt
    ids = encoded(tokenizer, [text])[0].ids
    loaded.check_prompt(ids)
    guess: Draft = _drafter(loaded, base, draft) or no_draft
    if not chosen.secure:
        note(f"the {chosen.name} computes in clear and protects nothing")
    told = _Told(tokenizer, silent=as_json)
    with stages(_STAGES, silent=as_json) as stage:
        answer = loaded.generate(
            ids,
            chosen,
            max_new_tokens=max_new_tokens,
            draft=guess,
            sampler=Sampler(temperature, seed),
            stop=_stops(tokenizer, stop or ()),
            on_tokens=told.more,
            progress=stage,
        )
    for warning in answer.warnings:
        note(warning)
    written = _cut(told.text, stop or ())
    if as_json:
        print(json.dumps(_json(loaded, answer, written), indent=1))
        return
    print()
    if chosen.exchanges:
        _show(loaded, answer)
    if answer.reason in ENDED:
        note(f"the answer ended: {ENDED[answer.reason]}")


def _drafter(program: Generator, base: Path | None, wanted: int | None) -> Draft | None:
    most = program.facts.tokens - 1
    if wanted is not None and wanted > most:
        raise MpccError(f"a step verifies {most} drafted tokens", todo="compile again with a larger --draft-tokens")
    count = most if wanted is None else wanted
    if base is None or count == 0:
        if wanted:
            raise MpccError("drafting needs the open base model", todo="name its folder with --base")
        return None
    from mpcc.drafting import BaseModel

    model = BaseModel(base)
    return lambda tokens, room: model(tokens, min(room, count))


class _Told:
    """Prints the text as it grows; the pieces of a token that is no whole character wait for the next."""

    def __init__(self, tokenizer: Any, *, silent: bool) -> None:
        self.tokenizer, self.silent = tokenizer, silent
        self.tokens: list[int] = []
        self.text = ""

    def more(self, tokens: Sequence[int]) -> None:
        self.tokens += tokens
        text = self.tokenizer.decode(self.tokens)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return
        if not self.silent:
            print(text[len(self.text) :], end="", flush=True)
        self.text = text


def _stops(tokenizer: Any, texts: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    if any(not text for text in texts):
        raise InputError("a stop text is empty")
    return lambda tokens: any(text in tokenizer.decode(list(tokens)) for text in texts)


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    return text[: min([found for stop in stops if (found := text.find(stop)) >= 0], default=len(text))]


def _json(program: Generator, answer: Generated, text: str) -> dict[str, object]:
    measured = answer.served.measured
    return {
        "text": text,
        "tokens": list(answer.tokens),
        "reason": answer.reason,
        "tokens_per_step": list(answer.per_step),
        "engine": answer.served.engine,
        "seconds": answer.seconds,
        "steps": [
            {"bytes_online": m.bytes_online, "rounds": m.rounds, "input_bytes": m.input_bytes, "seconds": m.seconds}
            for m in measured
        ],
        "weights_bytes": answer.served.weights_bytes,
        "estimated": {
            "prefill": program.prefill.cost().to_json(),
            "decode": program.decode.cost().to_json(),
        },
    }


def _show(program: Generator, answer: Generated) -> None:
    """One line on the prompt, one on the steps after it."""
    from mpcc.sizes import size

    first, *steps = answer.served.measured
    if answer.served.weights_bytes:
        note(f"weights shared once: {size(answer.served.weights_bytes)} for {program.private_elements:,} numbers")
    note(f"prompt: {size(first.bytes_online + first.input_bytes)}, {first.rounds} rounds, {first.seconds:.1f} s")
    tokens = sum(answer.per_step[1:])
    if steps and tokens:
        sent, rounds = sum(m.bytes_online + m.input_bytes for m in steps), sum(m.rounds for m in steps)
        seconds = sum(m.seconds for m in steps)
        note(
            f"{tokens} more tokens in {len(steps)} steps: {size(sent // tokens)} and {rounds / tokens:.0f} rounds a "
            f"token, {tokens / seconds:.2f} tokens a second"
        )
