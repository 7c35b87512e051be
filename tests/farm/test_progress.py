"""What is shown while something long runs: on a terminal, elsewhere, and in `farm status`."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from farm.base import progress
from farm.experiments import run_status

STEP = {"step": 3, "loss": 0.08071, "reward": 0.7912, "gold": 2.2701, "kl": 2.05, "entropy": 1.2, "length": 33.26}
STEP |= {"truncated_share": 0.125, "tokens_per_second": 1512.3}
SHOWN = "loss 0.081  reward 0.791  gold 2.270  kl 2.050  length 33.3  truncated 0.125  tokens/s 1,512"


class Terminal(io.StringIO):
    """An error stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_numbers_of_a_step_are_few_and_keep_their_places():
    assert progress.numbers(STEP) == SHOWN
    assert progress.numbers({"step": 0, "n": 4.0}) == ""
    assert progress.numbers({"kl": 3e-7, "loss": float("nan")}) == "loss nan  kl 0.000"


def test_a_terminal_of_80_columns_shows_count_and_numbers(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with progress.task("training expert_iteration", total=400) as work:
        work.advance(12, note=SHOWN)
        time.sleep(0.3)
    told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "training expert_iteration" in told
    assert "12 of 400" in told
    assert "kl 2.050" in told
    assert max(len(line) for line in re.split(r"[\r\n]", told)) <= 80


def test_elsewhere_the_end_of_a_task_is_told_with_its_last_numbers(capsys):
    with progress.task("training ppo", total=3) as work:
        for _ in range(3):
            work.advance(1, note=SHOWN)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training ppo: 0.")
    assert lines[0].endswith(f" s, {SHOWN}")


def test_elsewhere_a_long_task_says_a_line_now_and_then(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.task("training ppo", total=2000) as work:
        for _ in range(2000):
            now += 5.0
            work.advance(1, note="kl 1.000")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training ppo: 6 of 2,000, kl 1.000"
    assert lines[1] == "training ppo: 12 of 2,000, kl 1.000"
    assert lines[-1] == "training ppo: 10000.0 s, kl 1.000"
    assert 30 < len(lines) < 60  # in not quite three hours


def test_status_shows_the_numbers_of_what_is_under_way():
    stage = {"name": "ppo", "state": "running", "time": time.time() - 60}
    stage["progress"] = {"done": 3, "total": 80, "note": SHOWN}
    found = {"name": "pocket", "state": "running", "started": time.time() - 60, "stages": [stage], "at_once": 1}
    shown = run_status.lines(found)
    assert any(line.startswith("now      ppo  3 of 80") for line in shown)
    assert "  ".join(line.strip() for line in shown[-2:]) == SHOWN  # a number stays with its name
    assert shown[-2].endswith("length 33.3")
    assert max(map(len, shown)) <= 80
    reason = "RuntimeError: " + " ".join(["it was never going to work"] * 5)
    failed = {"name": "ppo", "state": "failed", "reason": reason}
    blocked = {"name": "answers", "state": "blocked", "reason": reason}
    shown = run_status.lines({**found, "stages": [failed, *[blocked] * 12, *[{**stage, "state": "found"}] * 300]})
    assert max(map(len, shown)) <= 80
    assert f"failed   ppo: {reason}" == " ".join(shown[4:]).replace("         ", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal, monkeypatch):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.quiet(), progress.task("training ppo", total=1) as work:
        work.advance(1, note=SHOWN)
    assert stream.getvalue() == ""


def test_a_line_of_numbers_behind_the_last_step_is_no_step(monkeypatch, tmp_path):
    """A reward model logs its accuracy on held-out pairs after the last step: 12 of 12, not 13 of 12."""
    import contextlib
    from types import SimpleNamespace

    from farm.experiments import making
    from farm.roles.protocols import Learning

    shown = []

    @contextlib.contextmanager
    def task(description, total=0):
        yield progress.Task(lambda done, total, note: shown.append((done, total)))

    def train(learning):
        learning.steps(3)
        for step in (0, 1, 2, 3):
            learning.log({"step": step, "loss": 1.0})
        return SimpleNamespace(save=lambda place: None)

    monkeypatch.setattr(making.progress, "task", task)
    place = SimpleNamespace(progress=None, folder=tmp_path, checkpoints=None)
    learning = Learning(seed=0, policy=None, prompts=None)
    facts = making.learn("rm", SimpleNamespace(train=train), learning, place)
    assert shown[-1] == (3, 3) and facts["steps"] == 4
