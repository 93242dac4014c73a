"""The one thing that is held by machine about how the code reads: short lines, short functions."""

import ast
from pathlib import Path

import pytest

FILES = sorted(path for pattern in ("*.py", "data/**/*.py") for path in Path().glob(pattern))


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_lines_fit_a_wall_and_functions_fit_a_head(path):
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(text) <= 100, f"{path}:{number} is {len(text)} characters long"
    for f in functions(path):
        lines = f.end_lineno - f.lineno + 1
        assert lines <= (50 if f.name in ("train", "arguments") else 40), f"{path}: {f.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_is_here_and_what_is_not(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert "Here:" in text or "Not here:" in text or path.name == "server.py"
