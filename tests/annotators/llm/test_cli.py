"""`farm annotate` with language models: dry run, budget, designs, head to head, batches, going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from annotators.face import commands
from annotators.llm import prices
from annotators.llm import session as sessions
from farm.base.errors import UserError
from farm.tables.formats import read_annotations, write_table
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer

Farm = Callable[..., dict[str, Any]]


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    app = typer.Typer()
    commands.register(app)
    app.command("other")(lambda: None)

    def run(*arguments: object) -> dict[str, Any]:
        given = [*map(str, arguments), "--out", str(tmp_path / "out.json"), "--store", str(tmp_path / "s.sqlite")]
        result = CliRunner().invoke(app, ["annotate", *given, "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:  # type: ignore[override]
    write_table(make_pairs(40), tmp_path / "pairs.json")
    return tmp_path / "pairs.json"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"x{i}", "output": "word " * (1 + k), "generator": f"m{k}", "score": float(k)}
        for i in range(10)
        for k in range(4)
    ]
    write_table(pd.DataFrame(rows), tmp_path / "samples.jsonl")
    return tmp_path / "samples.jsonl"


def on(server: FaultServer) -> list[str]:
    return ["--annotators", "openai_greedy", "--set", f"base_url={server.url}/v1", "--set", "model=openai/judge"]


def test_dry_run_then_run_then_all_known(farm: Farm, pairs: Path, tmp_path: Path) -> None:
    with FaultServer() as server:
        plan = farm(pairs, *on(server), "--dry-run")
        assert (plan["questions"], plan["cached"], plan["to_ask"]) == (40, 0, 40)
        assert not server.seen
        summary = farm(pairs, *on(server), "--concurrency", 4)
        assert summary["status"] == {"ok": 40}
        assert summary["questions"]["asked"] == 40
        assert server.most_in_flight <= 4
        table = read_annotations(tmp_path / "out.json")
        assert (table["preference"] == longer(table)).all()
        assert farm(pairs, *on(server), "--dry-run")["to_ask"] == 0
        assert farm(pairs, *on(server))["questions"] == {
            "asked": 0, "known": 40, "retried": 0, "failed": 0, "not asked": 0,
        }  # fmt: skip
        assert len(server.seen) == 40


def test_a_budget_leaves_rows_unobserved_and_more_goes_on(
    farm: Farm, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0))
    with FaultServer() as server:
        some = farm(pairs, *on(server), "--budget", 0.03)
        assert some["cost"] <= 0.03
        assert set(some["status"]) == {"ok", "unobserved"}
        rest = farm(pairs, *on(server), "--budget", 1)
        assert rest["status"] == {"ok": 40}
        assert some["cost"] + rest["cost"] == pytest.approx(40 * 0.0012)


def test_both_orders_and_replicates(farm: Farm, pairs: Path) -> None:
    with FaultServer(script="first") as server:
        summary = farm(pairs, *on(server), "--both-orders", "--replicates", 2)
    assert summary["ties"] == 80
    assert summary["consistent"] == 0.0
    assert summary["questions"]["asked"] == 160


def test_where_nothing_is_answered_the_command_fails(farm: Farm, pairs: Path, tmp_path: Path) -> None:
    write_table(pd.concat([make_pairs(4), make_pairs(2, 4).assign(output_2=lambda t: t["output_1"])]), pairs)
    body = {"error": {"message": "too long"}}
    with (
        FaultServer(lambda *_: Fault(status=400, body=body)) as server,
        pytest.raises(UserError, match=r"not one answer \(4 error\): status 400: too long") as caught,
    ):
        farm(pairs, *on(server))
    assert caught.value.status == 1
    assert read_annotations(tmp_path / "out.json")["status"].tolist() == ["error"] * 4 + ["ok"] * 2
    with pytest.raises(UserError, match=r"not one answer \(12 unparseable\)"):
        farm(pairs, "--kind", "ratings", "--annotators", "llm_rater", "--set", "model=mock/mumble")


def test_failures_are_counted(farm: Farm, pairs: Path) -> None:
    body = {"error": {"message": "too long"}}
    with FaultServer(lambda n, b, h: Fault(status=400, body=body) if n % 4 == 0 else None) as server:
        summary = farm(pairs, *on(server))
    assert summary["status"] == {"ok": 30, "error": 10}
    assert summary["questions"]["failed"] == 10


@pytest.mark.parametrize(
    ("design", "count"), [("random", 10), ("all", 60), ("best-worst", 10), ("swiss", 20), ("uncertainty", 10)]
)
def test_designs_from_samples(design: str, count: int, farm: Farm, samples: Path, tmp_path: Path) -> None:
    summary = farm(samples, "--annotators", "mock_judge", "--design", design)
    assert summary["verdicts"] == count
    table = read_annotations(tmp_path / "out.json")
    assert (table["preference"] == np.where(table["score_1"] > table["score_2"], 1.0, 2.0)).all()
    if design == "best-worst":
        assert (table["score_1"] - table["score_2"]).abs().eq(3).all()


def test_samples_are_paired_at_random_by_default(farm: Farm, samples: Path) -> None:
    assert farm(samples, "--annotators", "mock_judge")["verdicts"] == 10
    assert farm(samples, "--annotators", "mock_judge", "--per-instruction", 3)["verdicts"] == 30


def test_head_to_head(farm: Farm, tmp_path: Path) -> None:
    for name, words in (("base", 3), ("new", 5)):
        rows = [{"instruction": f"x{i}", "output": "word " * (words + i)} for i in range(8)]
        write_table(pd.DataFrame(rows), tmp_path / f"{name}.json")
    summary = farm(tmp_path / "new.json", "--against", tmp_path / "base.json", "--annotators", "mock_judge")
    assert summary["verdicts"] == 8
    table = read_annotations(tmp_path / "out.json")
    assert set(table["generator_1"]) == {"base"}
    assert set(table["generator_2"]) == {"new"}
    assert (table["preference"] == 2).all()


def test_mistakes_are_one_sentence(farm: Farm, samples: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match="did you mean `random`"):
        farm(samples, "--annotators", "mock_judge", "--design", "randm")
    with pytest.raises(UserError, match="head to head"):
        farm(samples, "--annotators", "mock_judge", "--design", "all", "--against", samples)
    with pytest.raises(UserError, match="no price is known"):
        farm(pairs, "--annotators", "openai_greedy", "--set", "model=openai/unheard-of", "--budget", 1)
    with pytest.raises(UserError, match="several outputs"):
        farm(samples, "--annotators", "mock_judge", "--against", samples)
    with pytest.raises(UserError, match="takes no batches"):
        farm(pairs, "--annotators", "mock_judge", "--batches")
