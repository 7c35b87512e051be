"""Win rates by groups that may intersect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eval.evaluators.leaderboard import Leaderboard
from eval.rates.categories import by_groups
from eval.rates.multiple import benjamini_hochberg
from farm.base.errors import UserError
from farm.roles.protocols import Comparison


def verdicts(method: str, rate: dict[str, float], each: int = 100) -> pd.DataFrame:
    """``each`` verdicts on instructions of two scopes and two levels; persona p wins always, q by its scope's rate."""
    rows = []
    for scope in ("in", "out/side"):
        for persona in ("p", "q"):
            wins = each if persona == "p" else int(each * rate[scope])
            said = np.where(np.arange(each) < wins, 2.0, 1.0)
            asked = [f"{scope} {k}" for k in range(each)]
            rows.append(pd.DataFrame({"instruction": asked, "scope": scope, "persona": persona, "preference": said}))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(method=method, generator_1="base", generator_2=method, output_1="x", output_2="y", status="ok")


def test_each_group_and_each_crossing_has_its_rate() -> None:
    table = verdicts("m", {"in": 0.2, "out/side": 0.6})
    found = by_groups(table, table["preference"] - 1, ["scope", "persona"]).set_index("group")
    rates = {"in": 60, "out|side": 80, "p": 100, "q": 40, "in and p": 100, "in and q": 20, "out|side and q": 60}
    assert {group: found["win_rate"][group] for group in rates} == pytest.approx(rates)
    assert found["n"][["in", "q", "in and q"]].tolist() == [200, 200, 100] and len(found) == 8
    assert set(found["by"]) == {"scope", "persona", "scope and persona"}
    assert found["p_bh"].to_numpy() == pytest.approx(benjamini_hochberg(found["p"]), nan_ok=True)


def test_rows_without_a_group_or_a_verdict_are_in_none() -> None:
    table = verdicts("m", {"in": 0.5, "out/side": 0.5}, each=10)
    table.loc[0, "scope"], table.loc[1, "preference"] = None, np.nan
    found = by_groups(table, table["preference"] - 1, ["scope"]).set_index("group")
    assert found["n"].to_dict() == {"in": 18, "out|side": 20}


def test_the_leaderboard_has_a_table_of_groups_where_it_is_asked_for() -> None:
    judged = pd.concat([verdicts("m", {"in": 0.2, "out/side": 0.6}), verdicts("n", {"in": 0.6, "out/side": 0.6})])
    outputs = judged.assign(output="y", sample=0)[["method", "instruction", "output", "sample"]]
    comparison = Comparison(outputs, {"judge": judged.reset_index(drop=True)}, "base", seed=0)
    tables = Leaderboard(rounds=10, by=("scope",)).evaluate(comparison)
    found = tables["groups"].set_index(["method", "group"])["win_rate"]
    assert found.to_dict() == pytest.approx(
        {("m", "in"): 60, ("m", "out|side"): 80, ("n", "in"): 80, ("n", "out|side"): 80}
    )
    assert "groups" not in Leaderboard(rounds=10).evaluate(comparison)
    with pytest.raises(UserError, match="the verdicts have no column `scop`; did you mean `scope`"):
        Leaderboard(rounds=10, by=("scop",)).evaluate(comparison)
