"""What a newcomer meets: an installed package, extras that exist, completion, and a folder that is in the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import farm

ROOT = Path(__file__).parents[2]
PACKAGES = ("farm", "annotators", "reference_methods", "eval")
FARM = Path(sys.executable).parent / "farm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with these folders on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_every_extra_that_a_text_names_exists() -> None:
    known = set(PROJECT["project"]["optional-dependencies"])
    sources = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py")]
    texts = [ROOT / "README.md", ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md"), *sources]
    named = {}
    for path in texts:
        text = path.read_text()
        for extras in re.findall(r"(?:feedback-farm|['\" ]\.)\[([a-z, ]+)\]", text):
            named |= {extra.strip(): path for extra in extras.split(",")}
        named |= dict.fromkeys(re.findall(r"\bneed\(\"(\w+)\"", text), path)
        assert not re.search(r"pip install '?feedback-farm", text), f"{path}: feedback-farm is in no registry"
    assert {"models", "ray", "judges", "plots"} <= set(named)
    assert set(named) <= known, {extra: named[extra] for extra in set(named) - known}
    from farm.hardware.machine import EXTRAS

    assert set(EXTRAS) <= known


def test_an_installed_package_has_its_configs_and_its_functions(tmp_path: Path) -> None:
    """As a wheel lays it out: the configs inside the package, where their folder must hide no function."""
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in included["packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, place in included["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / place)
    code = (
        "import farm; assert farm.__file__.startswith(%r), farm.__file__\n"
        "from farm import configs; print(*configs('worlds')['name'])\n"
        "print([name for name in dir(farm) if not callable(getattr(farm, name)) and name in farm.api.names()])"
    )
    done = python(code % str(tmp_path), tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    worlds, hidden = done.stdout.splitlines()
    assert worlds.split() == sorted(p.stem for p in (ROOT / "configs" / "worlds").glob("*.yaml"))
    assert hidden == "[]"


def test_completion_in_python_and_in_the_shell() -> None:
    assert {"annotate", "configs", "evaluate", "leaderboard", "run", "__version__"} <= set(dir(farm))
    environment = {**os.environ, "_FARM_COMPLETE": "complete_bash", "COMP_WORDS": "farm lead", "COMP_CWORD": "1"}
    done = subprocess.run([FARM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["leaderboard"], done.stderr


def test_types_are_announced() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("eval", "import farm; farm.evaluate"),
        ("annotators", "import farm; farm.run('pocket', out='x')"),
        ("eval.py", "import sys; sys.argv = ['farm', 'list']; from farm.cli import main; main()"),
    ],
)
def test_a_folder_that_hides_ours_is_one_clear_sentence(name: str, code: str, tmp_path: Path) -> None:
    place = tmp_path / name
    if not place.suffix:
        place.mkdir()
        place = place / "__init__.py"
    place.write_text("")
    done = python(code, tmp_path, tmp_path, ROOT)
    package = name.removesuffix(".py")
    said = f"{tmp_path / name}: hides the package `{package}` of feedback-farm; rename it, or start in another folder"
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
    assert "During handling" not in done.stderr
