"""Every engine is a class that keeps the promises of `runtime/engine.py`."""

import dataclasses
import inspect

import numpy as np
import pytest
import tiny_programs as tiny

from mpcc.compiler.errors import EngineError, InternalError, MpccError
from mpcc.runtime.emulator import Emulator
from mpcc.runtime.engine import Availability, Engine, Finding, Options, without_client
from mpcc.runtime.engines import DEFAULT, ENGINES, ESTIMATED, NAMES, engine_class, engine_named, secure_engines
from mpcc.runtime.parties.site import local_site

EVERY = pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
ANYWHERE = local_site(("provider",))


def configured(engine):
    return engine.configured(Options())


@EVERY
def test_it_is_one_class_known_by_its_name(engine):
    assert issubclass(engine, Engine) and not inspect.isabstract(engine)
    assert dataclasses.is_dataclass(engine) and engine_class(engine.name) is engine
    assert isinstance(engine_named(engine.name), engine) and engine_named(engine.name) == configured(engine)


@EVERY
def test_it_says_whether_it_is_here(engine):
    """In words for people, as checks for the doctor, and as an error: all three agree."""
    it = configured(engine)
    found, checks = it.availability(), list(it.examine(None))
    assert isinstance(found, Availability) and found.found and (found.ready or found.todo)
    assert checks and all(isinstance(c, Finding) and (c.status == "ok" or c.todo) for c in checks)
    if found.ready:
        it.check()
    else:
        with pytest.raises(EngineError):
            it.check()
        assert any(c.status == "fail" for c in checks)


@EVERY
def test_who_takes_part(engine):
    it = configured(engine)
    roles = it.roles("ring")
    assert it.protocol("ring") and bool(roles) is it.has_parties
    assert roles[:2] == (("client", "provider") if it.has_parties else ())


@EVERY
def test_what_it_cannot_do_is_refused(engine, tmp_path):
    """Whatever is missing on this machine."""
    it, program = configured(engine), tiny.prefix_program()
    shared, weights = program.deployment(), program.provider_weights()
    if not it.stores_shares:
        with pytest.raises(MpccError, match=f"{it.name} engine stores no shares: .+"):
            it.provision(shared, weights, tmp_path)
        with pytest.raises(MpccError, match="stores no shares"):
            it.run(shared, [], weights, state=tmp_path)
    if not it.has_parties:
        for action in (lambda: it.serve(shared, weights, ANYWHERE), lambda: it.run(shared, [], weights, site=ANYWHERE)):
            with pytest.raises(MpccError, match="has no parties"):
                action()


def test_which_engines_there_are():
    secure = [engine.name for engine in secure_engines()]
    assert secure == [name for name in NAMES if engine_class(name).secure] and Emulator.name not in secure
    assert secure[0] == DEFAULT == ESTIMATED and len(set(NAMES)) == len(NAMES)
    with pytest.raises(MpccError, match="there is no engine 'abacus'"):
        engine_named("abacus")


def test_wrong_options_are_refused_by_whom_they_concern():
    for engine in ENGINES:
        own = {"spu": {"spu_protocol": "spdz"}, "emulator": {"truncation": "upwards"}}.get(engine.name)
        for options in ({"spu_protocol": "spdz"}, {"truncation": "upwards"}):
            if options == own:
                with pytest.raises(MpccError):
                    engine.configured(Options(**options))
            else:
                engine.configured(Options(**options))


def test_the_client_does_not_serve():
    with pytest.raises(InternalError, match="the client runs"):
        without_client(local_site(("client", "provider")))


def test_requests_of_the_emulator_start_from_the_same_seed():
    """Answers are told as they come, in the form of every engine's."""
    program, told = tiny.prefix_program(), []
    it, request = Emulator(seed=3), program.prepared(tiny.sample()).request
    served = it.run(
        program.deployment(),
        [request, request],
        program.provider_weights(),
        on_answer=lambda number, answer: told.append(answer),
    )
    first, second = served.answers
    np.testing.assert_array_equal(first["logits"], second["logits"])
    assert [answer["logits"].tolist() for answer in told] == [a["logits"].tolist() for a in served.answers]
    assert served.players == () and [m.bytes_online for m in served.measured] == [0, 0]
    with pytest.raises(EngineError, match="at least one request"):
        it.run(program.deployment(), [], program.provider_weights())
