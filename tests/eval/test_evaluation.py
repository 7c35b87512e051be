"""``farm evaluate`` and its parts: what it computes, and what it refuses in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from eval.evaluators.evaluation import evaluate_table
from eval.face.api import evaluate
from farm.base.errors import UserError
from farm.statistics.uncertainty import difference_limits


def annotations(n: int = 60, methods=("a", "b"), seed: int = 0, flip: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    parts = []
    for k, method in enumerate(methods):
        won = generator.random(n) < 0.55 + 0.2 * k
        won = won ^ (generator.random(n) < flip)
        parts.append(
            pd.DataFrame(
                {"instruction": [f"do {i}" for i in range(n)], "generator_1": "base", "generator_2": method}
                | {"output_1": "x" * 50, "output_2": ["y" * (30 + i) for i in range(n)], "annotator": "judge"}
                | {"preference": 1.0 + won, "dataset": [f"set{i % 3}" for i in range(n)]}
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_everything_about_two_methods():
    table = annotations()
    found = evaluate_table(table, flip_rate=0.1)
    assert found.methods["method"].tolist() == ["b", "a"]
    row = found.methods.set_index("method").loc["a"]
    assert row["corrected_win_rate"] == pytest.approx((row["win_rate"] - 10) / 0.8)
    assert set(found.groups["category"]) == {"set0", "set1", "set2"} and len(found.groups) == 6
    wide = table.sample(frac=1, random_state=0).pivot(index="instruction", columns="generator_2", values="preference")
    by_hand = 100 * (wide["b"] - wide["a"])  # rows are matched by value, not by position
    low, _ = difference_limits(by_hand.mean() / 100, by_hand.std() / 100 / np.sqrt(len(by_hand)), len(by_hand))
    assert found.differences["difference"][0] == pytest.approx(by_hand.mean())
    assert found.differences["low"][0] == pytest.approx(100 * low)
    assert "paired by instruction" in str(found) and json.loads(found.to_json())["baseline"] == "base"


def test_people_correct_a_biased_judge():
    """The judge calls everything a win more often; PPI++ with 400 human labels covers the truth, the judge does not."""
    generator = np.random.default_rng(1)
    n = 4000
    truth = (generator.random(n) < 0.5).astype(float)
    judge = np.maximum(truth, generator.random(n) < 0.3)
    table = pd.DataFrame({"instruction": [f"i{k}" for k in range(n)], "generator_1": "base", "generator_2": "m"})
    people = table.head(400).assign(preference=1 + truth[:400])
    found = evaluate_table(table.assign(preference=1 + judge), humans=people).methods.loc[0]
    assert found["win_rate_low"] > 100 * truth.mean()
    assert found["ppi_low"] < 100 * truth.mean() < found["ppi_high"]
    assert found["n_human"] == 400 and found["ppi_effective_n"] > 500


def test_the_command(farm, tmp_path):
    annotations().to_json(tmp_path / "a.json", orient="records")
    status, out, _ = farm("evaluate", tmp_path / "a.json", "--json", "--out", tmp_path / "board.csv")
    assert status == 0 and json.loads(out)["methods"][0]["method"] == "b"
    assert pd.read_csv(tmp_path / "board.csv")["n_total"].tolist() == [60, 60]
    status, out, _ = farm("power", "--difference", "5", "--flip-rate", "0.25", "--json")
    assert status == 0 and json.loads(out)["annotations"] == 3132


def test_outputs_are_judged_against_a_baseline(farm, tmp_path):
    instructions = [f"Name {k} things about the sea." for k in range(30)]
    for name, text in (("base", "The sea is salt."), ("long", "The sea is wide, salt and deep. " * 4)):
        rows = [{"instruction": i, "output": f"{text} {i}", "generator": name} for i in instructions]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    judged = tmp_path / "judged.json"
    command = ("evaluate", tmp_path / "long.json", "--baseline", tmp_path / "base.json", "--judge", "evaluation")
    status, out, err = farm(*command, "--annotations", judged, "--json")
    assert status == 0, err
    first = json.loads(out)["methods"][0]
    assert first["n_total"] + first["n_missing"] == 30 and "30 verdicts asked, 0 from the store" in err
    status, again, err = farm(*command, "--json")  # the second run asks for nothing
    assert json.loads(again) == json.loads(out) and "0 verdicts asked, 30 from the store" in err
    status, again, err = farm(*command, "--json", "--fresh")
    assert json.loads(again) == json.loads(out) and "30 verdicts asked" in err
    status, _, err = farm(*command, "--store", tmp_path / "other.sqlite", "--seed", "1")
    assert status == 0 and "30 verdicts asked" in err and (tmp_path / "other.sqlite").is_file()
    rows = json.loads((tmp_path / "long.json").read_text())
    (tmp_path / "long.json").write_text(json.dumps([*rows[1:], rows[0] | {"output": "Another answer."}]))
    status, _, err = farm(*command)  # only what has changed is asked again
    assert "1 verdicts asked, 29 from the store" in err
    (tmp_path / "long.json").write_text(json.dumps(rows))
    status, again, _ = farm("evaluate", judged, "--json")  # the saved annotations say the same, without a judge
    assert json.loads(again)["methods"][0]["win_rate"] == pytest.approx(first["win_rate"])
    shorter = json.loads((tmp_path / "base.json").read_text())[:-1]
    (tmp_path / "base.json").write_text(json.dumps(shorter))
    status, _, err = farm(*command)
    assert status == 2 and "long.json: row 30: the baseline" in err


def _write(path, rows):
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: [*r, r[0]], "row 121: the same annotation"),
        (lambda r: [*r[:5], r[5] | {"generator_1": "other"}, *r[6:]], "row 6: the baseline is `other`"),
        (lambda r: [*r[:7], r[7] | {"preference": 3.0}, *r[8:]], "row 8: `preference` = 3"),
        (lambda r: [], "holds no annotation|preference"),
    ],
)
def test_bad_input_is_one_sentence(farm, tmp_path, change, said):
    import re

    rows = annotations().to_dict(orient="records")
    path = _write(tmp_path / "bad.json", change(rows))
    out = tmp_path / "board.csv"
    for command in ("evaluate", "leaderboard"):
        status, shown, err = farm(command, path, "--out", out)
        assert status == 2 and not shown and not out.exists()
        assert "bad.json" in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err
        if command == "evaluate":
            assert re.search(said, err), err


def test_a_file_cut_off_in_the_middle(farm, tmp_path):
    text = json.dumps(annotations().to_dict(orient="records"), indent=2)
    for end in (len(text) // 2, len(text) - 3):
        (tmp_path / "cut.json").write_text(text[:end])
        for command in ("evaluate", "leaderboard", "validate"):
            status, _, err = farm(command, tmp_path / "cut.json", "--out", tmp_path / "b.csv")
            assert status == 2 and "cut.json" in err and not (tmp_path / "b.csv").exists()


def test_the_evaluation_of_a_file_is_that_of_its_table(tmp_path):
    table = annotations()
    table.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(evaluate(tmp_path / "a.parquet").methods, evaluate_table(table).methods)
    with pytest.raises(UserError, match="no such file"):
        evaluate(tmp_path / "none.json")
