"""The skeleton holds: no circles, a layer for every module, nothing private used from outside, small files."""

from __future__ import annotations

import networkx

from tests.structure import tree

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 450, 60


def test_no_module_imports_itself_in_a_circle():
    """Imports inside functions count: a circle that is cut by a late import is a circle."""
    graph = networkx.DiGraph()
    for module in tree.modules():
        graph.add_edges_from((module, i.target) for i in tree.imports(module) if i.target != module)
    circles = [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert not circles, "\n".join(" <-> ".join(circle) for circle in circles)


def test_the_imports_of_this_repository_are_seen():
    """The checks above and below look at something: these three are there, one of them inside a function."""
    found = {(i.source, i.target) for module in tree.modules() for i in tree.imports(module)}
    assert ("mpcc.cli.app", "mpcc.cli.run") in found
    assert ("mpcc.marill.saving", "mpcc.compiler.frontend.sources") in found
    assert ("mpcc.cli.finetune", "mpcc.marill.recipe") in found
    assert ("mpcc.cli.finetune", "mpcc.marill.training") not in found, "only type checkers see that one"


def test_every_module_has_a_layer():
    layers = tree.layers()
    bare = {"mpcc", "mpcc.compiler"}
    lost = [m for m in tree.modules() if m not in bare and not any(f"{m}.".startswith(f"{each}.") for each in layers)]
    assert not lost, f"name their layer in pyproject.toml: {', '.join(lost)}"


def test_every_package_is_installed():
    found = {m for m, path in tree.modules().items() if path.name == "__init__.py"}
    assert found == tree.packages(), "setup.cfg lists the packages that are there"


def test_private_names_stay_at_home():
    """What ruff's rule SLF does not see: `from mpcc.module import _name`."""
    taken = [i for module in tree.modules() for i in tree.imports(module) if i.name.startswith("_")]
    assert not taken, "\n".join(f"{i.source}:{i.line} takes {i.name} of {i.target}" for i in taken)


def test_files_are_small():
    sizes = {str(p.relative_to(tree.ROOT)): len(p.read_text("utf-8").splitlines()) for p in tree.python_files()}
    assert len(sizes) > 200
    large = [f"{name}: {lines} lines" for name, lines in sizes.items() if lines > MOST_LINES]
    assert not large, "\n".join(large)


def test_functions_are_small():
    found = [(path.relative_to(tree.ROOT), *each) for path in tree.python_files() for each in tree.functions(path)]
    large = [f"{path} {name}: {lines} lines" for path, name, lines in found if lines > MOST_LINES_OF_A_FUNCTION]
    assert not large, "\n".join(large)
