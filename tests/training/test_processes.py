"""One batch of eight, eight of one, prompts computed once, two processes: the same trajectory (CPU, gloo)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import started
from tests.training import together

NAMES = ["sft", "dpo", "rloo", "ppo", "ufo"]
GAMES = ["sppo"]
"""which ``test_sharding`` shards"""
VARIANTS = {
    "whole": (1, 10**6),
    "accumulated": (1, 1),
    "shared prompts": (1, 10**6),
    "two processes": (2, 40),
    "sharded": (2, 40),
}
MORE = {"sharded": ["shard=true", "share_prompts=true"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The methods trained in float64, in every variant; the folder of each."""
    out = {name: tmp_path_factory.mktemp(f"together{number}") for number, name in enumerate(VARIANTS)}
    for name, (count, tokens) in VARIANTS.items():
        methods = NAMES if name in MORE else NAMES + GAMES
        if count == 1:
            together.main(out[name], methods, tokens, share_prompts=name == "shared prompts")
            continue
        words = [str(out[name]), ",".join(methods), str(tokens), *MORE.get(name, [])]
        started.group(count, Path(together.__file__), *words)
    return out


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        *itertools.product(NAMES, ["accumulated", "shared prompts", "two processes", "sharded"]),
        *itertools.product(GAMES, ["accumulated", "shared prompts", "two processes"]),
    ],
)
def test_the_trajectory_is_the_same(trained: dict[str, Path], method: str, variant: str) -> None:
    whole = trained["whole"] / "rank0"
    expected = load_file(whole / f"{method}.safetensors")["parameters"]
    lines = json.loads((whole / f"{method}.json").read_text())
    for rank in range(VARIANTS[variant][0]):
        folder = trained[variant] / f"rank{rank}"
        found = load_file(folder / f"{method}.safetensors")["parameters"]
        difference = found - expected
        assert np.abs(difference).max() < 2e-6, (method, variant, rank, np.abs(difference).max())
        assert abs(difference.mean()) < 1e-8  # rounding has no direction
        assert (folder / f"{method}.txt").read_text() == (whole / f"{method}.txt").read_text()
    logged = json.loads((trained[variant] / "rank0" / f"{method}.json").read_text())
    assert [line.keys() for line in logged] == [line.keys() for line in lines]
    for line, other in zip(lines, logged, strict=True):
        # DPO starts with margins that are 0 up to rounding, and the accuracy asks for their sign.
        unsure = {"accuracy"} if method == "dpo" and line["step"] == 0 else set()
        for name in line.keys() - {"tokens_per_second", "seconds"} - unsure:
            assert other[name] == pytest.approx(line[name], rel=1e-4, abs=1e-5), (name, line["step"])


def test_only_the_first_process_logs(trained: dict[str, Path]) -> None:
    assert json.loads((trained["two processes"] / "rank1" / "ppo.json").read_text()) == []


def test_an_alarm_in_the_first_ends_all(trained: dict[str, Path]) -> None:
    for rank in (0, 1):
        assert (trained["two processes"] / f"rank{rank}" / "stopped.txt").read_text() == "an alarm"


def test_a_mistake_that_one_process_meets_is_told_by_all(trained: dict[str, Path]) -> None:
    for rank in (0, 1):
        told = json.loads((trained["two processes"] / f"rank{rank}" / "mistaken.json").read_text())
        assert told.keys() == {"sampled", "in parts", "trained"}
        assert all("does not fit the model's context" in text for text in told.values())


def test_one_process_asks_and_all_get_the_verdicts(trained: dict[str, Path]) -> None:
    one, other = (json.loads((trained["two processes"] / f"rank{rank}" / "asked.json").read_text()) for rank in (0, 1))
    assert (one["rows"], other["rows"]) == (9, 0)
    assert one["verdicts"] == other["verdicts"] == [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]
    assert one["queries"] == other["queries"] == 6
    assert one["told"] == other["told"] == "the budget is spent"


def test_one_process_talks_to_the_user(trained: dict[str, Path]) -> None:
    whole = int((trained["whole"] / "rank0" / "replies.txt").read_text())
    for variant in ("two processes", "sharded"):
        found = [int((trained[variant] / f"rank{rank}" / "replies.txt").read_text()) for rank in (0, 1)]
        assert found == [whole, 0] and whole > 24  # two steps of twelve episodes, some of two turns


def test_training_moved_the_parameters(trained: dict[str, Path]) -> None:
    numbers = [load_file(trained["whole"] / "rank0" / f"{name}.safetensors")["parameters"] for name in NAMES]
    for i, first in enumerate(numbers):
        assert all(np.abs(first - second).max() > 1e-4 for second in numbers[i + 1 :])
