"""Tokens that come out of a session are those that the private model writes by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from decoders import CACHE, PROMPT, greedy, made, models, prompts
from mp_spdz_here import needs_mp_spdz

from mpcc.api import compile_generation
from mpcc.compiler.errors import BundleError, EngineError, InputError, MpccError
from mpcc.loading import generates, load, load_generator
from mpcc.runtime.engine import Options
from mpcc.runtime.engines import engine_named
from mpcc.sampling import Sampler, no_draft

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def same_as_alone(case, prompt, engine, draft, count=8):
    said = []
    answer = case.program.generate(prompt, engine, max_new_tokens=count, draft=draft, on_tokens=said.append)
    assert list(answer.tokens) == greedy(case.tuned, prompt, count)
    assert [t for tokens in said for t in tokens] == list(answer.tokens)
    assert [len(tokens) for tokens in said] == list(answer.per_step)
    return answer


@pytest.mark.parametrize("drafting", [False, True])
def test_greedy_tokens_on_the_emulator(frozen_llama, drafting):
    steps = 0
    for prompt in prompts(PROMPT):
        draft = frozen_llama.draft if drafting else no_draft
        answer = same_as_alone(frozen_llama, prompt, engine_named("emulator"), draft)
        assert answer.reason == "length"
        steps += len(answer.per_step)
    assert steps == 8 * PROMPT if not drafting else steps < 8 * PROMPT


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_all_private(kind):
    """Every layer's keys and values are kept in shares; a wrong draft costs nothing but the step."""
    case = made(kind)
    for prompt in prompts(3)[1:]:
        same_as_alone(case, prompt, engine_named("emulator"), lambda tokens, wanted: [0] * wanted, 5)
    inputs = {s.name for s in case.program.decode.bundle.manifest.inputs}
    assert not any(name.startswith(("key", "value")) for name in inputs)


def test_sampling_is_that_of_the_model_alone(frozen_llama):
    """With one seed the same tokens come with and without the emulator's errors: temperature 0.7, no draft."""
    prompt = prompts(4)[-1]
    first, second = (
        frozen_llama.program.generate(
            prompt, engine_named("emulator", Options(seed=seed)), max_new_tokens=6, sampler=Sampler(0.7, 5)
        ).tokens
        for seed in (0, 1)
    )
    assert first == second


def test_it_ends_when_the_cache_is_full(frozen_llama):
    answer = frozen_llama.program.generate([1, 2], engine_named("emulator"), max_new_tokens=100)
    assert answer.reason == "full"
    assert CACHE - PROMPT - 2 <= len(answer.tokens) <= CACHE - PROMPT + 1
    assert list(answer.tokens) == greedy(frozen_llama.tuned, [1, 2], len(answer.tokens))


def test_it_ends_where_it_is_told_to(frozen_llama):
    whole = greedy(frozen_llama.tuned, [3], 6)
    answer = frozen_llama.program.generate(
        [3], engine_named("emulator"), max_new_tokens=6, stop=lambda tokens: whole[2] in tokens
    )
    assert answer.reason == "stop" and list(answer.tokens) == whole[: whole.index(whole[2]) + 1]


@pytest.mark.parametrize(
    "prompt, message",
    [
        ([], "the prompt is empty"),
        ([1] * (PROMPT + 1), "the prompt has 7 tokens"),
        ([40], "a token that the model has not"),
    ],
)
def test_a_wrong_prompt(frozen_llama, prompt, message):
    with pytest.raises(InputError, match=message):
        frozen_llama.program.generate(prompt, engine_named("emulator"))


def test_spu_keeps_nothing(frozen_llama):
    with pytest.raises(EngineError, match="SPU keeps no shares between requests"):
        frozen_llama.program.generate([1], engine_named("spu"))


def test_round_trip(frozen_llama, tmp_path):
    path = tmp_path / "prog.mpc"
    frozen_llama.program.save(path)
    assert generates(path)
    loaded = load_generator(path)
    assert loaded.facts == frozen_llama.program.facts
    same_as_alone(
        type(frozen_llama)(frozen_llama.tuned, frozen_llama.base, loaded), [5, 6], engine_named("emulator"), no_draft, 3
    )
    with pytest.raises(BundleError, match="mpcc generate"):
        load(path)
    path.write_text(path.read_text() + "\n# more\n")
    with pytest.raises(BundleError, match="not the one that the ring programs make"):
        load_generator(path)


@pytest.mark.parametrize("change", [{"prompt": 0}, {"cache": 3}, {"tokens": "2"}, {"format": "x"}, {"extra": 1}])
def test_a_damaged_session_file(frozen_llama, tmp_path, change):
    path = tmp_path / "prog.mpc"
    frozen_llama.program.save(path)
    file = path.with_suffix(".mpcc") / "session.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match="the session file is corrupt"):
        load_generator(path)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"prompt_tokens": 6, "cache_tokens": 6}, "a cache of 6 entries does not hold"),
        ({"prompt_tokens": 6, "cache_tokens": 9, "draft_tokens": 3}, "a cache of 9 entries does not hold"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):

    with pytest.raises(MpccError, match=message):
        compile_generation(models("llama")[0], [[1, 2]], **sizes)


@needs_mp_spdz
@pytest.mark.mp_spdz
@pytest.mark.parametrize("protocol", ["ring", "dealer-ring"])
def test_real_parties(tmp_path, protocol):
    """Weights and the cache are shared once: a step's bytes are those of the estimate, to the byte on ring."""
    case = made("llama", tmp_path / "base", protocol=protocol)
    answer = same_as_alone(case, [7, 8, 9], engine_named("mp-spdz"), case.draft, 6)
    prefill, decode = (program.cost() for program in case.program.programs)
    measured = answer.served.measured
    if protocol == "ring":
        assert measured[0].bytes_online == prefill.bytes_online
        assert {m.bytes_online for m in measured[1:]} == {decode.bytes_online}
        assert {m.input_bytes for m in measured[1:]} == {decode.input_bytes}
        assert answer.served.weights_bytes == prefill.provisioning_bytes == decode.provisioning_bytes
    assert np.sum(answer.per_step) == 6


@needs_mp_spdz
@pytest.mark.xfail(strict=True, reason="blocks of causal attention do not share rounds as the cost model believes")
def test_rounds_of_a_step_are_those_of_the_estimate(tmp_path):
    case = made("llama", tmp_path / "base")
    answer = same_as_alone(case, [7, 8, 9], engine_named("mp-spdz"), case.draft, 6)
    estimated = max(program.cost().rounds for program in case.program.programs)
    assert max(m.rounds for m in answer.served.measured) <= estimated + 1
