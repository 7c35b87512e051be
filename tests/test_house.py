"""The plan of the house is kept: imports go down, and no machine's name or path is in the project."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_opens_with_its_idea() -> None:
    for package in ("farm", "annotators", "reference_methods", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            assert re.match(r'\s*(#!.*\n)?"""', path.read_text()), f"{path} has no docstring at its top"


def test_nothing_is_unpickled_and_yaml_is_loaded_safely() -> None:
    forbidden = re.compile(
        r"\bpickle\.loads?\b|torch\.load\(|yaml\.load\([^,]*\)|\beval\(|\bexec\(|trust_remote_code=True"
    )
    for package in ("farm", "annotators", "reference_methods", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if forbidden.search(line) and "model.eval()" not in line and ".eval()" not in line:
                    raise AssertionError(f"{path}:{number}: {line.strip()}")
