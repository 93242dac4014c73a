"""Who may import whom (data/README.md): arrows between the folders run one way."""

import ast
from pathlib import Path

import pytest

SOURCE = [*Path().glob("*.py"), *Path("data").rglob("*.py")]
# what a folder may not import; nobody imports a command
FORBIDDEN = {"data.harbour": ("train", "simulate", "evaluate"),
             "data.api": ("train", "simulate", "evaluate"),
             "data.formats": ("train", "simulate", "evaluate"),
             "data.measure": ("evaluate",),
             "": ("data.experiment",)}


def imports(text):
    """Every module and every name of a module that a source imports, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(path.with_suffix("").parts)


def violations(module, text):
    """What a module imports against the rule: ["data.formats.files imports train", ...]."""
    found = []
    for name in imports(text):
        leaf = name.rpartition(".")[2]
        command = leaf == "main" or leaf.startswith("command_")
        forbidden = any(module.startswith(folder) and (name == other or name.startswith(other + "."))
                        for folder, others in FORBIDDEN.items() for other in others)
        if command or forbidden and not module.startswith("data.experiment"):
            found.append(f"{module} imports {name}")
    return found


def test_arrows_run_one_way():
    assert not [line for path in SOURCE for line in violations(module_of(path), path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("module, text", [
    ("data.formats.files", "from train import pad"),
    ("data.formats.clean", "def f():\n    import train"),
    ("data.api.journal", "import simulate"),
    ("data.harbour.people", "from evaluate import answer"),
    ("data.measure.card", "import evaluate"),
    ("train", "from data.experiment import report"),
    ("evaluate", "from data.experiment.talks import dialogues"),
    ("data.measure.judge", "from simulate import main"),
    ("data.experiment.probes", "from evaluate import command_score")])
def test_the_rule_is_red_where_it_is_broken(module, text):
    assert violations(module, text)


def test_no_import_circle():
    """Among the source's modules, counting imports inside functions as well."""
    graph = {module_of(path): set(imports(path.read_text(encoding="utf-8"))) for path in SOURCE}
    finished = set()

    def visit(name, path=()):
        assert name not in path, " -> ".join([*path, name])
        if name not in finished:
            for other in sorted(graph[name] & set(graph)):
                visit(other, (*path, name))
            finished.add(name)
    for name in graph:
        visit(name)
