"""The README's demo: its table is that of a recorded run, and its first example says what it gives."""

from __future__ import annotations

import json
import re
import tomllib

import pandas as pd

import farm
from tests.docs.test_documents import ROOT, blocks

RECORD = json.loads((ROOT / "docs" / "demo.json").read_text())


def test_the_table_is_that_of_the_recorded_run() -> None:
    """Its order and its signs; `make readme-table RUN=...` writes both anew."""
    board = pd.DataFrame(RECORD["leaderboard"])
    shown = next(text for language, _, text in blocks("README.md") if text.startswith("pocket, seed 1"))
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[3:] if line.strip()]
    header = re.split(r"\s{2,}", lines[1].strip())
    assert header == ["rank", "method", "win rate", "by humans", "by gold", "gold", "kl"]
    assert [row[1] for row in rows] == board["method"].tolist()
    assert board["win_rate"].is_monotonic_decreasing
    columns = {"win rate": "win_rate", "by humans": "win_rate_humans", "by gold": "win_rate_gold", "gold": "gold"}
    for name, column in columns.items():
        cells = [row[header.index(name)].split(" ±") for row in rows]
        digits = 2 if name == "gold" else 1
        assert [cell[0] for cell in cells] == [f"{x:.{digits}f}" for x in board[column]]
        middle = 0 if name == "gold" else 50
        assert [float(cell[0]) > middle for cell in cells] == (board[column].round(digits) > middle).tolist()


def test_the_first_example_gives_what_it_says() -> None:
    text = (ROOT / "README.md").read_text()
    said = {name: int(share) for name, share in re.findall(r"^\| ([^|]+\.|[^|]+\?) \| (\d+) % \|$", text, re.MULTILINE)}
    pairs = next(json.loads(content) for _, title, content in blocks("README.md") if title == "pairs.json")
    votes = farm.annotate(pairs, "evaluation", replicates=20)
    share = 100 * (votes["preference"] == 2).groupby(votes["instruction"]).mean()
    assert share.round(6).to_dict() == said
    assert len(said) == 3
    assert 0 < said["Name two fruits."] < 100


def test_the_container_is_installed_as_the_makefile_does_and_started_as_the_readme_says() -> None:
    """No container engine is needed here: its instructions are those that the other documents give."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in steps} <= {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = next(rest for word, rest in steps if word == "FROM")
    version = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert version and int(version[1]) >= int(project["requires-python"].rpartition(".")[2])

    makefile, readme = ((ROOT / name).read_text() for name in ("Makefile", "README.md"))
    installed = re.findall(r"\$\(PIP\) install (.*)", makefile.partition(".venv/installed-test:")[0])
    inside = re.findall(r"pip install (.*?)(?: *&&|$)", next(rest for word, rest in steps if word == "RUN"))
    assert [step.replace("--no-cache-dir ", "").strip() for step in inside] == [s.replace("-e ", "") for s in installed]
    extras = re.search(r"'\.\[[a-z,]+\]'", installed[-1])
    assert extras and f"uvx --torch-backend cpu -c constraints.txt --from {extras[0]} farm run pocket" in readme

    assert json.loads(next(rest for word, rest in steps if word == "ENTRYPOINT"))[0] in project["scripts"]
    workdir = [rest for word, rest in steps if word == "WORKDIR"][-1]
    for command in lines[0].removeprefix("# ").split(" && "):
        assert f"`{command}`" in readme
        assert "-v" not in command or f":{workdir}/runs" in command
    assert f"FARM_HOME={workdir}/runs/" in next(rest for word, rest in steps if word == "ENV")
    assert "constraints.txt" not in (ROOT / ".dockerignore").read_text()
