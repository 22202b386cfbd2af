"""Exported programs whose author is an enemy: nothing in them runs, each ends in one line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable

import pytest
import sympy
import torch

from mpcc.cli import app as cli
from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.archive import check_archive, load_program
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.export import save_model
from mpcc.compiler.frontend.symbols import parse_size

JSON, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Small(torch.nn.Module):
    """A model with a weight, a plain tensor, a text argument and an open size."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)
        self.table = torch.arange(3.0)

    def forward(self, x, y):
        return torch.nn.functional.gelu(self.dense(x), approximate="tanh") + self.table, x + y


@pytest.fixture(scope="module")
def exported() -> bytes:
    size = torch.export.Dim("rows", min=2, max=30)
    inputs = (torch.zeros(5, 4), torch.zeros(5, 4))
    program = torch.export.export(Small(), inputs, dynamic_shapes=({0: size}, {0: size}), strict=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def rewritten(
    data: bytes,
    change: Callable[[dict], None] = lambda table: None,
    *,
    entry: str = JSON,
    extra: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """The archive with one of its JSON files changed, and with `extra` files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        root = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            raw = source.read(name)
            if name == f"{root}/{entry}":
                table = json.loads(raw)
                change(table)
                raw = json.dumps(table).encode()
            target.writestr(name, raw)
        for name, raw in (extra or {}).items():
            target.writestr(name.replace("ROOT", root), raw)
    return buffer.getvalue()


def graph(table):
    return table["graph_module"]["graph"]


def replace_text(table, old: str, new: str) -> None:
    """Put `new` for every text that is `old`, as a value or a key."""
    for key in list(table) if isinstance(table, dict) else range(len(table)):
        if table[key] == old:
            table[key] = new
        elif isinstance(table[key], (dict, list)):
            replace_text(table[key], old, new)
        if key == old:
            table[new] = table.pop(old)


def test_the_honest_file_loads(exported):
    program = load_program(exported)
    x = torch.rand(5, 4)
    assert program.range_constraints
    with torch.no_grad():
        got = program.module()(x, x)
    assert torch.equal(got[1], x + x)


CODE = "__import__('pathlib').Path({marker!r}).touch()"


def expression(table, code):
    found = []

    def walk(value):
        for entry in value.values() if isinstance(value, dict) else value:
            if isinstance(entry, dict) and "expr_str" in entry:
                found.append(entry)
            if isinstance(entry, (dict, list)):
                walk(entry)

    walk(table)
    assert found
    for entry in found:
        entry["expr_str"] = f"({code}, {entry['expr_str']})[1]"


def guard(table, code):
    table["guards_code"] = [f"{code} is None"]


def target(name):
    def change(table, code):
        node = graph(table)["nodes"][0]
        node["target"] = name
        node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {code}"}, "kind": 1}]

    return change


def value_name(table, code):
    replace_text(table, graph(table)["nodes"][0]["name"], f"v\n    {code}\n    w")


def parameter_name(table, code):
    replace_text(table, "dense.weight", f'dense.x" or {code} or "y')


def argument_names(table, code):
    signature = table["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = ["x", f"y=({code})"]


def enumeration(table, code):
    signature = table["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature["in_spec"])
    spec[1]["context"] = json.dumps({"__enum__": True, "fqn": "antigravity:A", "name": code})
    signature["in_spec"] = json.dumps(spec)


def default_dict(table, code):
    signature = table["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature["in_spec"])
    context = {"default_factory_module": "antigravity", "default_factory_name": code, "dict_context": []}
    spec[1] |= {"type": "collections.defaultdict", "context": context}
    signature["in_spec"] = json.dumps(spec)


def keyword_name(table, code):
    signature = table["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature["in_spec"])
    spec[1]["children_spec"][1] |= {"context": json.dumps([f"k'] + {code}"])}
    signature["in_spec"] = json.dumps(spec)


def symbol_count(table, code):
    table["range_constraints"]["u99999999999"] = {"min_val": 0, "max_val": 5}


def text_argument(table, code):
    for node in graph(table)["nodes"]:
        for argument in node["inputs"]:
            if "as_string" in argument["arg"]:
                argument["arg"]["as_string"] = "/etc/passwd"
                return
    raise AssertionError


def custom_object(table, code):
    graph(table)["nodes"][0]["inputs"][0]["arg"] = {"as_custom_obj": {"name": "a", "class_fqn": "b"}}


def unknown_field(table, code):
    graph(table)["nodes"][0]["hook"] = code


def wrong_type(table, code):
    table["range_constraints"] = code


def nested(table, code):
    inner: list = []
    for _ in range(900):
        inner = [inner]
    table["guards_code"] = inner


CHANGES = [
    expression,
    guard,
    *(pytest.param(target(n), id=n) for n in ("torch.os.system", "torch.ops.load_library", "torch.hub.load")),
    *(pytest.param(target(n), id=n) for n in ("torch.ops.aten.from_file.default", "_operator.attrgetter", "#x:y")),
    *(pytest.param(target(n), id=n) for n in ("torch.ops.aten.add.__class__", "math.log", "torch.ops.mine.f.default")),
    value_name,
    parameter_name,
    argument_names,
    enumeration,
    default_dict,
    keyword_name,
    symbol_count,
    text_argument,
    custom_object,
    unknown_field,
    wrong_type,
    nested,
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_the_program_runs(exported, tmp_path, monkeypatch, change):
    seen: list[str] = []
    evaluate = sympy.sympify
    monkeypatch.setattr(sympy, "sympify", lambda text, *a, **k: (seen.append(str(text)), evaluate(text, *a, **k))[1])
    marker = tmp_path / "ran"
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(exported, lambda table: change(table, CODE.format(marker=str(marker)))))
    with pytest.raises(MpccError, match="cannot load the exported program") as caught:
        capture(path, [torch.zeros(5, 4), torch.zeros(5, 4)])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not marker.exists() and not seen


def test_the_command_ends_in_one_line(exported, tmp_path, capsys):
    marker = tmp_path / "ran"
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(exported, lambda table: expression(table, CODE.format(marker=str(marker)))))
    arguments = ["compile", str(path), "-o", str(tmp_path / "prog.mpc"), "--calibrate-random", "1"]
    assert (cli.call(arguments), marker.exists()) == (2, False)
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "is not allowed" in err and not out


def test_a_file_of_mpcc_save_takes_the_same_way(exported, tmp_path):
    path, marker = tmp_path / "saved", tmp_path / "ran"
    save_model(Small(), path, [torch.zeros(5, 4), torch.zeros(5, 4)])
    with zipfile.ZipFile(path) as archive:
        meta = archive.read("mpcc.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mpcc.json", meta)
        hostile = rewritten(exported, lambda table: guard(table, CODE.format(marker=str(marker))))
        archive.writestr("model.pt2", hostile)
    with pytest.raises(MpccError, match=r"the guard .* is not allowed"):
        capture(path)
    assert not marker.exists()


class Touch:
    """A pickle that runs when it is opened."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return (exec, (CODE.format(marker=self.marker),))


def payload(table, **changes):
    entry = next(iter(table["config"].values()))
    entry |= changes


PICKLES = {
    "a pickled weight": (WEIGHTS, {"use_pickle": True}, {}),
    "an object of a class": (CONSTANTS, {"path_name": "custom_obj_0", "tensor_meta": None}, {}),
    "an opaque object": (CONSTANTS, {"path_name": "opaque_obj_0", "tensor_meta": None}, {}),
    "a file that is listed nowhere": (WEIGHTS, {}, {"ROOT/data/constants/opaque_obj_0": b""}),
    "weights of the old form": (WEIGHTS, {}, {"ROOT/data/weights/model.pt": b""}),
    "a program of the old form": (WEIGHTS, {}, {"version": b"1", "serialized_exported_program.json": b"{}"}),
    "a second program": (WEIGHTS, {}, {"ROOT/models/other.json": b"{}"}),
}


@pytest.mark.parametrize(("entry", "changes", "extra"), PICKLES.values(), ids=PICKLES)
def test_no_pickle_is_opened(exported, tmp_path, entry, changes, extra):
    marker = tmp_path / "ran"
    bomb = pickle.dumps(Touch(str(marker)))
    name = f"ROOT/data/constants/{changes['path_name']}" if "path_name" in changes else None
    extra = {k: v or bomb for k, v in extra.items()} | ({name: bomb} if name else {})
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(exported, lambda table: payload(table, **changes), entry=entry, extra=extra))
    with pytest.raises(MpccError, match="cannot load the exported program"):
        capture(path)
    assert not marker.exists()


def test_a_file_that_unpacks_to_more_than_it_is(exported):
    with pytest.raises(MpccError, match="compressed"):
        check_archive(rewritten(exported, compression=zipfile.ZIP_DEFLATED))


def test_a_tensor_that_claims_any_size(exported):
    def huge(table):
        meta = next(iter(table["config"].values()))["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 10**6}] * 2, [{"as_int": 0}] * 2

    with pytest.raises(MpccError, match="larger than the file"):
        check_archive(rewritten(exported, huge, entry=WEIGHTS))


@pytest.mark.parametrize("keep", [10, 1000, 5000])
def test_half_a_file(exported, tmp_path, keep):
    path = tmp_path / "model.pt2"
    path.write_bytes(exported[:keep])
    with pytest.raises(MpccError):
        capture(path)


def test_every_size_of_the_honest_file_is_in_the_grammar(exported):
    texts: list[str] = []

    def collect(table):
        def walk(value):
            for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
                if key == "expr_str":
                    texts.append(entry)
                elif isinstance(entry, (dict, list)):
                    walk(entry)

        walk(table)

    rewritten(exported, collect)
    assert texts and all(parse_size(t) for t in texts)
