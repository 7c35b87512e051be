"""The page of a paper: from its folder alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.report.html import Html
from farm.base.errors import UserError

RESULT: dict[str, Any] = {
    "name": "x", "title": "More <b>& better", "arxiv": "2310.16763", "digest": "0", "version": "1",
    "date": "2026-11-29",    "seeds": [1, 2, 3], "minutes": 1.25,
    "claims": [
        {"text": "more is <script>better", "verdict": "shown", "effect": 0.5, "low": 0.1, "high": 0.9, "n": 60,
         "seeds": 3},
        {"text": "nothing moves", "verdict": "not shown", "effect": 0.1, "low": None, "high": None, "n": 1, "seeds": 1},
        {"text": "it is cheap", "verdict": "stated"},
    ],
    "controls": [{"text": "equal", "verdict": "held", "effect": 0.0, "low": 0.0, "high": 0.0, "n": 60, "seeds": 3}],
}  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    (folder / "claims.json").write_text(json.dumps({**RESULT, **changes}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"title": "x", "claim": "more is better", "notes": "cut short"}))
    return folder


def test_a_page_has_every_claim_with_its_picture_and_verdict(tmp_path: Path) -> None:
    page = Html().write(written(tmp_path)).read_text()
    assert "more is &lt;script&gt;better" in page and "<script>better" not in page and "&lt;b&gt;&amp; better" in page
    assert page.count('class="chart row"') == 3  # two claims with numbers and a control
    for said in ("+0.500", "[+0.100, +0.900]", "n 60, 3 seeds", "not shown", "stated", "too few", "held", "cut short"):
        assert said in page, said


def test_a_page_shows_the_methods_of_its_runs(tmp_path: Path) -> None:
    run = written(tmp_path) / "runs" / "main"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: main")
    board = [
        {"method": m, "kl": k, "gold": g, "win_rate": 50.0 + k} for m, k, g in [("a", 1.0, 2.0), ("sft", 0.0, 0.5)]
    ]
    for name, rows in (("leaderboard", board), ("variants", [{"variant": "s1", "seed": 1}])):
        (run / f"{name}.json").write_text(json.dumps(rows))
        (run / f"{name}.csv").write_text("")
    page = Html().write(tmp_path).read_text()
    assert "The methods of main" in page and "a: gold 2.00 at KL 1.00" in page


def test_a_result_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims.json: `minutes` = 'long' is wrong"):
        Html().write(written(tmp_path, minutes="long"))
