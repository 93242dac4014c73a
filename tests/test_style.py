"""What is held by machine about how the code reads: lines that fit, functions that read straight down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = [path for pattern in ("*.py", "data/**/*.py") for path in sorted(Path().glob(pattern))]
TESTS = sorted(Path("tests").rglob("*.py"))


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", SOURCE + TESTS, ids=str)
def test_lines_fit_on_a_screen_and_functions_on_a_page(path):
    widest = 120 if path in TESTS else 100
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(text) <= widest, f"{path}:{number} is {len(text)} characters long"
    for f in functions(path):
        # one function that reads straight down is better than three to be held in mind at once
        lines = f.end_lineno - f.lineno + 1
        assert lines <= 60, f"{path}: {f.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCE, ids=str)
def test_every_module_says_what_it_holds(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_what_computes_nothing_imports_no_torch():
    """Importing torch takes seconds, and half of the stages of `make all` need none."""
    modules = "simulate, evaluate, data.experiment.talks, data.experiment.reach, data.experiment.report"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
