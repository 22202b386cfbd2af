"""Private generation: a prompt goes in once, then a few tokens at a time against a cache that stays in the session.

The client chooses the tokens: it alone receives the logits. Tokens that it has drafted with the open base model, in
clear, are verified in one secure step: as many as the private model would have chosen are kept, and one more.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mpcc.compiler.bundle.session import DECODE, PREFILL, SessionFacts
from mpcc.compiler.bundle.write import save_session
from mpcc.compiler.errors import InputError, InternalError
from mpcc.compiler.frontend.decoding import IDS, KEPT, LOGITS, PLACE, POSITIONS
from mpcc.inputs import tokenizer_of
from mpcc.runtime.deployment import Deployment, session_of
from mpcc.runtime.engine import Answer, Engine, Request, Served
from mpcc.runtime.mp_spdz.emitted import placed_in_session, source_of
from mpcc.sampling import Draft, Sampler, accepted, no_draft

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from mpcc.program import Prepared, Program
    from mpcc.runtime.parties.processes import Limits
    from mpcc.runtime.parties.site import Site

FIRST, NEXT = 0, 1  # the steps of a session
OnTokens = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class Generated:
    """An answer: its tokens, why it ended ("length", "end", "stop" or "full"), how many tokens each secure step gave,
    and the session with what every step cost.
    """

    tokens: tuple[int, ...]
    reason: str
    per_step: tuple[int, ...]
    served: Served
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generator:
    """The programs of a model that generates: `prefill` takes the prompt, `decode` what comes after it."""

    prefill: Program
    decode: Program
    facts: SessionFacts

    @property
    def programs(self) -> tuple[Program, Program]:
        """By the step that requests name."""
        return self.prefill, self.decode

    def deployment(self) -> Deployment:
        """What every role knows of the session."""
        return session_of([program.bundle for program in self.programs])

    @property
    def source(self) -> str:
        """The MP-SPDZ program text of a session."""
        return source_of(self.deployment())

    def save(self, path: str | Path) -> None:
        """Write `prog.mpc`, the source of a session, and `prog.mpcc/`, both or neither.

        Raises:
            BundleError: the name, the folder or the space there is do not allow it, or a part is missing.
        """
        save_session({PREFILL: self.prefill.bundle, DECODE: self.decode.bundle}, self.facts, self.source, path)

    @property
    def tokenizer(self) -> Tokenizer:
        """The client's. InputError if the program has none."""
        client = self.prefill.bundle.client
        return tokenizer_of(None if client is None else client.tokenizer_json)

    def generate(
        self,
        prompt: Sequence[int],
        engine: Engine,
        *,
        max_new_tokens: int = 16,
        draft: Draft = no_draft,
        sampler: Sampler | None = None,
        stop: Callable[[Sequence[int]], bool] = lambda tokens: False,
        on_tokens: OnTokens = lambda tokens: None,
        site: Site | None = None,
        limits: Limits | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> Generated:
        """Answer one prompt in a session of its own.

        Args:
            prompt: token ids.
            engine: one that keeps states.
            draft: the tokens that probably come next, given all so far and how many are wanted.
            sampler: how a token is chosen of logits; by default the most likely one.
            stop: asked after every step with the tokens so far.
            on_tokens: called with the new tokens of each step.
            site: the client's, where the other roles are elsewhere.

        Raises:
            InputError: the prompt is empty, too long, or holds a token that the model has not.
            EngineError: as `Engine.run`.
        """
        begin = time.perf_counter()
        talk = _Conversation(self, list(prompt), max_new_tokens, draft, sampler or Sampler(), stop, on_tokens)
        weights = None
        if site is None:
            weights = {k: v for program in self.programs for k, v in program.provider_weights().items()}
        served = engine.run(
            self.deployment(),
            talk.requests(),
            weights,
            site=site,
            limits=limits,
            on_stage=progress,
            on_answer=talk.answered,
        )
        warnings = tuple(dict.fromkeys(talk.warnings))
        return Generated(
            tuple(talk.new), talk.reason, tuple(talk.per_step), served, time.perf_counter() - begin, warnings
        )

    def check_prompt(self, prompt: Sequence[int]) -> None:
        """InputError: the prompt is empty, too long, or holds a token that the model has not."""
        if not prompt:
            raise InputError("the prompt is empty")
        if len(prompt) > self.facts.prompt:
            raise InputError(
                f"the prompt has {len(prompt)} tokens, the program takes {self.facts.prompt}",
                todo="shorten it, or compile again with a larger --prompt-tokens",
            )
        highest = next((s.highest for s in self.prefill.bundle.manifest.inputs if s.name == IDS), None)
        if any(token < 0 or (highest is not None and token > highest) for token in prompt):
            raise InputError(f"the prompt holds a token that the model has not: its ids are 0 to {highest}")

    @property
    def private_elements(self) -> int:
        """Ring elements of the provider, shared once in a session."""
        return sum(p.elements for p in placed_in_session(self.deployment())[0])


@dataclass
class _Conversation:
    """One prompt on its way: what has been said, what the next step is asked, what it answered.

    Requests are made in another thread than answers are taken: each waits for what the answer before it decided.
    """

    program: Generator
    tokens: list[int]
    wanted: int
    draft: Draft
    sampler: Sampler
    stop: Callable[[Sequence[int]], bool]
    on_tokens: OnTokens
    new: list[int] = field(default_factory=list)
    per_step: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""

    def __post_init__(self) -> None:
        self.program.check_prompt(self.tokens)
        facts = self.program.facts
        self.padding = facts.prompt - len(self.tokens)
        self.kept = torch.zeros(1, facts.cache, dtype=torch.int64)  # entries of the cache that hold a token
        self.kept[:, self.padding : facts.prompt] = 1
        self.place = 0  # the first entry that the next step writes
        self.cache: dict[str, torch.Tensor] = {}  # of frozen layers
        self.asked: list[tuple[Prepared, list[int]]] = []
        self.answers: queue.Queue[bool] = queue.Queue()

    # ** requests **
    def requests(self) -> Iterator[Request]:
        """The prompt, then steps as long as there is something to ask."""
        yield self._request(FIRST, self.tokens, self._prompt())
        while self.answers.get():
            ids = self._drafted()
            yield self._request(NEXT, ids, self._step(ids))

    def _request(self, step: int, ids: list[int], inputs: dict[str, torch.Tensor]) -> Request:
        program = self.program.programs[step]
        names = {spec.name for spec in program.bundle.manifest.inputs}
        prepared = program.prepared({name: value for name, value in inputs.items() if name in names})
        self.warnings += prepared.warnings
        self.asked.append((prepared, ids))
        return Request(prepared.request.values, prepared.request.shared, step)

    def _prompt(self) -> dict[str, torch.Tensor]:
        length = self.program.facts.prompt
        ids = torch.zeros(1, length, dtype=torch.int64)
        ids[0, self.padding :] = torch.tensor(self.tokens)
        return {
            IDS: ids,
            KEPT: self.kept[:, :length],
            POSITIONS: self._positions(FIRST, 0, length),
            PLACE: torch.tensor([0]),
        }

    def _drafted(self) -> list[int]:
        """The last token, whose successor is wanted, and a guess of those after it."""
        wanted = self.program.facts.tokens
        guess = list(self.draft(self.tokens, wanted - 1))[: wanted - 1]
        return [self.tokens[-1], *guess]

    def _step(self, ids: list[int]) -> dict[str, torch.Tensor]:
        facts = self.program.facts
        padded = ids + [ids[-1]] * (facts.tokens - len(ids))
        own = torch.ones(1, facts.tokens, dtype=torch.int64)
        return {
            IDS: torch.tensor([padded]),
            KEPT: torch.cat([self.kept, own], dim=1),
            POSITIONS: self._positions(NEXT, self.place, facts.tokens),
            PLACE: torch.tensor([self.place]),
            **self.cache,
        }

    def _positions(self, step: int, first: int, count: int) -> torch.Tensor:
        """Where the tokens stand: by entry of the cache if all may know it, else in the text."""
        roles = {spec.name: spec.role for spec in self.program.programs[step].bundle.manifest.inputs}
        shift = 0 if roles.get(POSITIONS) == "public" else self.padding
        return (torch.arange(first, first + count) - shift).clamp(min=0)[None]

    # ** answers **
    def answered(self, number: int, answer: Answer) -> None:
        """Take the answer to a request: choose tokens, and say whether there is a next step."""
        step = FIRST if number == 0 else NEXT
        prepared, ids = self.asked[number]
        outputs = self.program.programs[step].outputs(prepared, answer)
        logits = outputs.pop(LOGITS)[0]
        chosen = [self.sampler.choose(logits[-1])] if step == FIRST else accepted(logits, ids[1:], self.sampler)
        self._keep(outputs, step, len(chosen))
        self._say(chosen)
        self.answers.put(not self.reason)

    def _keep(self, entries: dict[str, torch.Tensor], step: int, accepted_tokens: int) -> None:
        """What frozen layers add to the cache; what was rejected is overwritten by the next step."""
        facts = self.program.facts
        count = facts.prompt if step == FIRST else facts.tokens
        for name, value in entries.items():
            if name not in self.cache:
                self.cache[name] = torch.zeros(*value.shape[:2], facts.cache, value.shape[3])
            self.cache[name][:, :, self.place : self.place + count] = value
        if step == FIRST:
            self.place = facts.prompt
        else:
            self.kept[:, self.place : self.place + accepted_tokens] = 1
            self.place += accepted_tokens

    def _say(self, chosen: list[int]) -> None:
        facts = self.program.facts
        end = next((i for i, token in enumerate(chosen) if token in facts.end), None)
        said = (chosen if end is None else chosen[:end])[: self.wanted - len(self.new)]
        self.new += said
        self.tokens += said
        self.per_step.append(len(said))
        self.on_tokens(said)
        if end is not None and len(said) == end:
            self.reason = "end"
        elif self.stop(self.new):
            self.reason = "stop"
        elif len(self.new) >= self.wanted:
            self.reason = "length"
        elif self.place + facts.tokens > facts.cache:
            self.reason = "full"
        elif not said:
            raise InternalError("a step chose no token")
