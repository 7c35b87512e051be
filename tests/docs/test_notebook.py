"""The notebook runs from top to bottom as a kernel runs it, and what its cells show can be shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import started
from tests.docs.test_documents import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
KERNEL = """
import ast, json, linecache, sys
shown, names = [], sys.modules["__main__"].__dict__
for number, source in enumerate(json.load(sys.stdin)):
    cell = f"<cell {number}>"
    linecache.cache[cell] = len(source), None, source.splitlines(True), cell
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, cell, "exec"), names)
    if last is not None:
        shown.append(eval(compile(ast.Expression(last.value), cell, "eval"), names)._repr_html_())
print(json.dumps(shown))
"""
"""What a kernel does: cell after cell in one namespace, each known by a name, the last expression shown."""


def test_it_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    environment = {**os.environ, "FARM_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL], input=json.dumps(cells), cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    annotated, outcome, board, agreement, won = json.loads(done.stdout.splitlines()[-1])
    assert annotated.count("<tr") == 6
    assert "sharpened" in outcome and "sharpened" in board
    assert "gold" in agreement and "mine" in won
    for arguments in (["status", "mine"], ["evaluate", "mine"]):
        after = started.run(*arguments, cwd=tmp_path, env=environment)
        assert after.returncode == 0, after.stderr


def test_it_is_kept_as_notebooks_are_and_without_results() -> None:
    assert NOTEBOOK["nbformat"] == 4
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
