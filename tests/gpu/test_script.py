"""`benchmarks/gpu_check.sh` without a GPU: what it would start is there, and all of it together ends in ten minutes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"


def commands(tmp_path: Path) -> dict[str, list[str]]:
    """The arguments of python, part by part, as a python that does nothing else notes them."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    given = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run(["bash", str(SCRIPT), str(tmp_path / "out")], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = {path.stem: path.read_text().splitlines() for path in (tmp_path / "out").glob("*.log")}
    logs.pop("device")
    said = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert {line.partition(":")[0] for line in said} == set(logs) and all("status 0" in line for line in said)
    return logs


def test_every_part_starts_what_is_there(tmp_path: Path) -> None:
    parts = commands(tmp_path)
    assert set(parts) == {"tests", "graphs", "train_1b", "train_7b", "vllm_7b", "vllm_tests"}
    for name, words in parts.items():
        if words[:2] != ["-m", "pytest"]:
            source = (ROOT / words[0]).read_text()
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), name
            continue
        place = next(ROOT / word for word in words if word.startswith("tests/"))
        files = sorted(place.glob("test_*.py")) if place.is_dir() else [place]
        marked = [
            path.read_text() for path in files if f"pytest.mark.{words[words.index('-m', 2) + 1]}" in path.read_text()
        ]
        tests = re.findall(r"^def (test_\w+)", "\n".join(marked), re.MULTILINE)
        wanted = words[words.index("-k") + 1]
        chosen = [t for t in tests if all(w not in t for w in wanted.split()[1:])] if wanted.startswith("not ") else [
            t for t in tests if any(w in t for w in wanted.split(" or "))
        ]  # fmt: skip
        assert chosen, (name, wanted)


def test_all_parts_together_end_in_ten_minutes() -> None:
    """Their limits came to eleven."""
    lines = [line.split() for line in map(str.strip, SCRIPT.read_text().splitlines()) if line.startswith("part ")]
    assert len(lines) == 6 and sum(int(line[2]) for line in lines) <= 590
