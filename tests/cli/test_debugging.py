"""The flags of `mpcc compile` that show what passes do."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from mpcc.cli import app as cli
from mpcc.cli.compile import FIELDS, REPEATED, compile_command
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.threads import one_torch_thread
from mpcc.compiler.graph.text import parse_graph
from mpcc.compiler.ring.text import parse_ring
from tests.bundle import tiny_programs as tiny


def test_passes_are_printed_timed_and_left_out(capsys, tmp_path):
    flags = ["--print-after", "roll_layers", "--print-after", "cut", "--print-after", "defer_rescales", "--time-passes"]
    target = ["-o", str(tmp_path / "new.mpc"), "--calibrate-random", "2", "--without", "roll_layers"]
    assert cli.call(["compile", str(tiny.saved_model()), *target, *flags]) == 0
    said = capsys.readouterr().err
    printed = dict(re.findall(r"^# after (\w+)\n(.*?^(?:\}|return .*?)\n)", said, re.DOTALL | re.MULTILINE))
    assert list(printed) == ["cut", "defer_rescales"], "a pass that was left out prints nothing"
    graph, ring = parse_graph(printed["cut"]), parse_ring(printed["defer_rescales"])
    assert {n.site for n in graph.operations()} == {"mpc"} and not any(n.op == "repeat" for n in ring)
    for row in ("narrow_reads", "choose_truncations", "lower", "price", "together"):
        assert re.search(rf"{row} .*\d\.\d\d\d", said), row
    assert not re.search(r"roll_layers .*\d\.\d\d\d", said)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--without", "label"], "the pass label cannot be left out.*narrow_reads, fold_affine"),
        (["--without", "magic"], "the pass magic cannot be left out"),
        (["--print-after", "magic"], "there is no pass magic.*all, assign_roles"),
    ],
)
def test_a_pass_that_is_none_is_refused_with_the_list(capsys, tmp_path, flag, message):
    assert cli.call(["compile", "model.pt2", "-o", str(tmp_path / "new.mpc"), *flag]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_every_field_of_the_command_is_one_of_options_with_its_default():
    parameters = inspect.signature(compile_command).parameters
    for name in FIELDS:
        default = getattr(Options(), REPEATED.get(name, name))
        assert parameters[name].default == (default if default or default in (0, False) else None), name


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="mine"), one_torch_thread():
        raise ValueError("mine")
    assert torch.get_num_threads() == before
