"""What the source tree says about itself: modules, imports, sizes. Read from the text, nothing is imported."""

from __future__ import annotations

import ast
import configparser
import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FOLDERS = ("mpcc", "compiler", "passes", "backends", "runtime", "marill", "benchmarks", "examples", "tests")


@dataclass(frozen=True)
class Import:
    """`name` of module `target` (or, with an empty name, the module itself), at a line of `source`."""

    source: str
    target: str
    name: str
    line: int


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def python_files() -> list[Path]:
    """Every Python file of the repository."""
    return [path for folder in PYTHON_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything that is installed; setup.cfg says which folder is which package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = (line.split("=") for line in config["options"]["package_dir"].split("\n") if line)
    result: dict[str, Path] = {}
    for package, folder in ((package.strip(), ROOT / folder.strip()) for package, folder in lines):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            parts = inside[:-1] if inside[-1] == "__init__" else inside
            result[".".join((package, *parts))] = path
    return result


def packages() -> set[str]:
    """What setup.cfg installs."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options"]["packages"].split())


def layers() -> list[str]:
    """The modules and packages that the contract of layers names."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (contract,) = (c for c in config["tool"]["importlinter"]["contracts"] if c["id"] == "layers")
    return [name.strip(" \n()") for layer in contract["layers"] for name in layer.split(":")]


@functools.cache
def imports(source: str) -> tuple[Import, ...]:
    """What a module imports of mpcc, also inside functions; what only type checkers see is left out."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[Import]:
    known = modules()
    for node in _running(parsed(known[source])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield Import(source, alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target, name = (whole, "") if whole in known else (node.module, alias.name)
                yield Import(source, target, name, node.lineno)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, except in the body of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function of a file, methods and inner ones too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1
