"""A library's processes end with ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, sys, time
from farm.engines import children

if __name__ == "__main__":
    with children.that_end_with_us() as over:
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(100,))
        child.start()
    if sys.argv[1] == "over":
        over()
    print(child.pid, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["watched", "over"])
def test_a_child_ends_when_its_parent_is_killed(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    # The time limit of all tests ends a wait in vain; one that nobody watches is looked at once more, a little later.
    while alive(child) and how == "watched":
        time.sleep(0.05)
    time.sleep(1 if how == "over" else 0)
    try:
        assert alive(child) == (how == "over")  # nobody watches it any more
    finally:
        if alive(child):
            os.kill(child, 9)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"
