"""Documentation is tested: the files a document shows are written to a folder, and its commands run there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.cli import _application
from tests import started

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_DOCS = ("annotators", "evaluation", "experiments", "extending", "games")
SKILL = "skills/feedback-farm/SKILL.md"
TESTED = ["README.md", *(f"docs/{name}.md" for name in _DOCS), SKILL]
_SIZES = ["world.documents=640", "world.epochs=1", "sizes.demonstrations=96", "sizes.prompts=24", "sizes.pairs=96"]
_SIZES += ["sizes.evaluation=8", "methods.ppo.steps=1", "methods.ppo.rollouts=16"]
SMALLER = {
    "farm run pocket": [word for size in _SIZES for word in ("--set", size)],
    "farm game cycle.json --method all": ["--iterations", "20"],
}
"""What is added to a command that would take long"""


def blocks(document: str) -> list[tuple[str, str, str]]:
    """(language, title, content) of the fenced blocks of a document."""
    return [(m[1], m[2] or "", m[3]) for m in BLOCK.finditer((ROOT / document).read_text())]


@pytest.mark.parametrize("document", TESTED)
def test_the_commands_of_a_document_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(document)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    for _, title, content in found:
        if title:
            (tmp_path / title).write_text(content)
    commands = [line[2:] for language, _, content in found if language == "console" for line in content.splitlines()]
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert words[0] in ("farm", "python")
        words += [word for start, more in SMALLER.items() if command.startswith(start) for word in more]
        program = [started.FARM] if words[0] == "farm" else []
        done = started.ended(started.Started([*program, *words[1:]], tmp_path))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_command_of_the_readme_is_known() -> None:
    """`farm` commands named anywhere in the documents exist, with the options that are shown."""
    shown: dict[str, set[str]] = {}
    for document in ["README.md", SKILL, *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]:
        for language, _, content in blocks(document):
            if language in ("console", "bash", "sh"):
                for line in content.replace("\\\n", " ").splitlines():
                    if match := re.match(r"^(?:\$ )?farm (\w+)(.*)", line):
                        shown.setdefault(match[1], set()).update(re.findall(r"(?<!\S)(--[a-z-]+)", match[2]))
    assert shown
    runner = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"})
    for command, options in sorted(shown.items()):
        done = runner.invoke(_application(), [command, "--help"])
        assert done.exit_code == 0, f"farm {command}: {done.output}"
        for option in sorted(options):
            assert option in done.output, f"farm {command} has no {option}"


PICTURES = sorted((ROOT / "docs" / "annotators").glob("*.svg"))
_CURVE = re.compile(r'<path d="M([^"M]*)" class="curve(?: dashed)? (m\d)"/>')
_LABEL = re.compile(r'<text x="([\d.]+)" y="([\d.]+)" class="label (m\d)">')


def test_the_pictures_of_annotators_are_those_of_the_document() -> None:
    shown = re.findall(r"!\[\]\(annotators/(\w+)\.svg\)", (ROOT / "docs" / "annotators.md").read_text())
    assert sorted(shown) == [path.stem for path in PICTURES]
    assert all(f"<title>{path.stem}</title>" in path.read_text() for path in PICTURES)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_labels_above_one_another_stand_as_their_lines_do(path: Path) -> None:
    """Two labels without a leader that begin within ten units of each other, and the ends of their lines."""
    picture = path.read_text()
    ends = {line: float(points.split("L")[-1].split()[1]) for points, line in _CURVE.findall(picture)}
    labels = [(float(x), float(y), line) for x, y, line in _LABEL.findall(picture) if f'"leader {line}"' not in picture]
    assert set(ends) >= {line for _, _, line in labels}
    for x, y, line in labels:
        for other_x, other_y, other in labels:
            if abs(x - other_x) < 10 and y < other_y:
                assert ends[line] <= ends[other], f"{line} and {other} of {path.name} have each other's place"
