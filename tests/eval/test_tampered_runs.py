"""A run folder that was edited, cut or damaged: `farm evaluate` and `farm report` say in one sentence what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eval.face.api import evaluate
from eval.face.run_evaluation import evaluate_run
from eval.report.html import Html
from farm.base import progress
from farm.base.errors import UserError
from farm.experiments import run_tables
from tests.run_double import made_up


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("run"))


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        path = folder / name
        if path.suffix == ".parquet":
            change(pd.read_parquet(path)).to_parquet(path)
        else:
            rows = change(pd.DataFrame(json.loads(path.read_text())))
            path.write_text(json.dumps(rows.to_dict(orient="records")))

    return tamper


def column(name: str, **values: Any) -> Callable[[Path], None]:
    return table(name, lambda t: t.assign(**{c: pd.Series([v] * len(t), dtype=object) for c, v in values.items()}))


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def dialogues(rows: int, turn: int) -> Callable[[Path], None]:
    said = {"method": "m", "instruction": "i", "output": "o", "episode": 0, "turn": turn, "reward": 1.0}
    return lambda folder: pd.DataFrame([said] * rows, columns=list(said)).to_parquet(
        folder / "tables/dialogues.parquet"
    )


OUTPUTS, JUDGE = "tables/outputs.parquet", "tables/judge_judge.parquet"
TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no method": (table(OUTPUTS, lambda t: t.drop(columns="method")), "outputs.parquet: the column `method`"),
    "no output": (table(OUTPUTS, lambda t: t.drop(columns="output")), "outputs.parquet: the column `output`"),
    "null output": (column(OUTPUTS, output=None), "outputs.parquet: row 1: `output` is missing"),
    "lists": (column(OUTPUTS, output=[1]), "outputs.parquet: row 1: `output` is not a text but"),
    "bytes": (column(OUTPUTS, instruction=b"\xff"), "`instruction` is not a text but bytes"),
    "gold of words": (column(OUTPUTS, gold="high"), "outputs.parquet: row 1: `gold` is not a number but str 'high'"),
    "endless gold": (column(OUTPUTS, gold=float("inf")), "row 1: `gold` = inf is too large"),
    "gold true": (column(OUTPUTS, gold=True), "row 1: `gold` is not a number but bool"),
    "no rows": (table(OUTPUTS, lambda t: t[:0]), "outputs.parquet: holds no row"),
    "no judge": (lambda folder: (folder / JUDGE).unlink(), "the verdicts of the judge are missing"),
    "judge without rows": (table(JUDGE, lambda t: t[:0]), "judge_judge.parquet: holds no row"),
    "dialogues without rows": (dialogues(0, turn=0), "dialogues.parquet: holds no row"),
    "dialogues without a beginning": (dialogues(1, turn=2), "dialogues.parquet: a method has no first turn"),
    "no preference": (table(JUDGE, lambda t: t.drop(columns="preference")), "the column `preference` is missing"),
    "preference 7": (column(JUDGE, preference=7.0), "`preference` = 7"),
    "preferences in lists": (column(JUDGE, preference=[1]), "row 1: `preference` is not a number"),
    "nobody judged": (
        table(JUDGE, lambda t: t.drop(columns=["method", "generator_2"])),
        "neither the column `method` nor `generator_2`",
    ),
    "another's verdicts": (column(JUDGE, method="nobody"), "name the method `nobody`, which has no outputs"),
    "config of numbers": (text("config.yaml", "3"), "config.yaml: expected a mapping"),
    "config cut off": (text("config.yaml", "a: [1"), "config.yaml"),
    "seed": (text("config.yaml", "seed: -1"), "config.yaml: `seed` must be a whole number"),
    "large seed": (text("config.yaml", f"seed: {10**30}"), "config.yaml: `seed` must be a whole number"),
    "confidence": (
        text("config.yaml", "evaluator: {class: eval.evaluators.leaderboard.Leaderboard, confidence: 5.0}"),
        "config.yaml: `confidence` = 5.0 is wrong",
    ),
    "costs in a list": (text("costs.json", "[]"), "costs.json: expected an object"),
    "price of words": (
        text("costs.json", '{"annotations": [{"role": "a", "annotations": 1, "price": "x"}]}'),
        "price`",
    ),
    "stages": (text("costs.json", '{"stages": 3}'), "costs.json: `stages`: input should be a valid list"),
    "difference": (column("pairwise.json", difference="x"), "pairwise.json: row 1: `difference` is not a number"),
    "board": (text("leaderboard.json", "[1]"), "leaderboard.json: row 1 is not an object"),
    "board of words": (column("leaderboard.json", win_rate="x"), "`win_rate` is not a number"),
    "large number": (column("leaderboard.json", win_rate=1e300), "row 1: `win_rate` = 1e+300 is too large"),
}


def both(folder: Path) -> list[str]:
    """What the two commands refuse."""
    said = []
    with progress.quiet():
        for call in (evaluate_run, Html().write):
            try:
                call(folder)  # type: ignore[operator]
            except UserError as error:
                said.append(str(error))
    return said


def test_the_folder_as_it_was_is_not_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert both(tmp_path / "run") == []


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_wrong_is_one_sentence(what: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    tamper, complaint = TAMPERED[what]
    tamper(tmp_path / "run")
    said = both(tmp_path / "run")
    assert said and any(complaint in sentence for sentence in said), said
    assert all(len(sentence) < 300 + len(str(tmp_path)) and "\n" not in sentence for sentence in said)


@pytest.mark.parametrize("metric", [[1], None, "x", 1e300, {"a": 1}])
def test_odd_metrics_are_left_out(metric: Any, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    lines = [json.dumps({"method": "dpo", "step": k, "kl": metric if k == 1 else 0.1}) for k in range(4)]
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines))
    assert both(tmp_path / "run") == []


def test_a_name_that_looks_like_a_number_stays_a_name(run: Path, tmp_path: Path) -> None:
    pd.DataFrame({"method": [7, 8], "win_rate": [50.0, None]}).to_csv(tmp_path / "leaderboard.csv", index=False)
    assert run_tables.read(tmp_path / "leaderboard.csv")["method"].tolist() == ["7", "8"]


def test_an_option_that_a_run_folder_would_not_read_is_refused(run: Path, farm: Callable[..., Any]) -> None:
    """They were taken without a word, and changed nothing."""
    assert "leaderboard" in evaluate(run)
    with pytest.raises(UserError, match="leave out `confidence`"):
        evaluate(run, confidence=0.9)
    with pytest.raises(UserError, match="leave out `human`"):
        evaluate(run, human=pd.DataFrame({"preference": [1.0]}))
    for given, complaint in ((("--flip-rate", "0.1"), "leave out --flip-rate"), (("--out", "x.csv"), "--out: ")):
        status, out, said = farm("evaluate", run, *given)
        assert (status, out) == (2, "") and complaint in said
