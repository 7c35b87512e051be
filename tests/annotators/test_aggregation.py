"""Votes made into labels: known answers, who beats whom when competences differ, and the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from annotators.noise.flip import Flip
from annotators.people.logit import LogitAnnotator
from annotators.runs.aggregation import WAYS, aggregated
from farm.base.errors import UserError
from farm.tables.records import annotation_table, swapped


def table_of(votes: list[list[float]], names: str = "abcdefgh") -> pd.DataFrame:
    parts = []
    for k, column in enumerate(zip(*votes, strict=True)):
        pairs = pd.DataFrame({"instruction": [f"x {i}" for i in range(len(votes))], "output_1": "p", "output_2": "q"})
        parts.append(
            annotation_table(pairs, names[k], np.array(column), np.full(len(votes), np.nan), seed=0, price=0.5)
        )
    return pd.concat(parts, ignore_index=True)


def test_majority_shares_ties_and_adds_costs():
    table = aggregated(table_of([[1, 1, 2], [2, 2, 1.5], [1, 2, 1.5], [np.nan, np.nan, np.nan]]), "majority")
    assert table["preference"].tolist()[:3] == [1, 2, 1.5] and np.isnan(table["preference"].iloc[3])
    assert table["p_first"].tolist()[:3] == pytest.approx([2 / 3, 1 / 6, 0.5])
    assert table["votes"].tolist() == [3, 3, 3, 0] and table["price"].tolist() == [1.5] * 4
    assert table["agreement"].iloc[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_the_outputs_does_not_matter(way, features_of, pairs_of):
    generator = np.random.Generator(np.random.Philox(1))
    first, second = generator.integers(0, 30, (2, 300))
    pairs = pairs_of(*(x[first != second] for x in (first, second)))
    oracle = LogitAnnotator(features_of(u=np.linspace(0, 3, 30)), greedy=True)
    tables = [Flip(oracle, r).annotate(pairs, seed=k).assign(annotator=str(k)) for k, r in enumerate((0.1, 0.2, 0.3))]
    plain = aggregated(pd.concat(tables), way)
    turned = swapped(tables[1], generator.random(len(pairs)) < 0.5)
    mixed = aggregated(pd.concat([tables[0], turned, tables[2]]), way)
    pd.testing.assert_series_equal(plain["preference"], mixed["preference"])


def test_weights_and_models_beat_the_majority_where_competences_differ(features_of, pairs_of):
    generator = np.random.Generator(np.random.Philox(2))
    first, second = generator.integers(0, 40, (2, 3000))
    pairs = pairs_of(*(x[first != second] for x in (first, second)))
    oracle = LogitAnnotator(features_of(u=np.linspace(0, 3, 40)), greedy=True)
    truth = oracle.annotate(pairs, seed=0)["preference"].to_numpy()
    rates = (0.05, 0.08, 0.42, 0.42, 0.42, 0.42, 0.42)
    tables = [Flip(oracle, r).annotate(pairs, seed=k).assign(annotator=str(k)) for k, r in enumerate(rates)]
    right = {w: (aggregated(pd.concat(tables), w)["preference"].to_numpy() == truth).mean() for w in WAYS}
    assert right["weighted"] > right["majority"] + 0.03
    assert right["dawid-skene"] > right["majority"] + 0.08 and right["glad"] > right["majority"] + 0.08


def test_mistakes_are_told():
    with pytest.raises(UserError, match="ask for --replicates"):
        aggregated(table_of([[1], [2]]), "majority")
    with pytest.raises(UserError, match="majority"):
        aggregated(table_of([[1, 2]]), "majorty")


def test_the_command_aggregates(annotate, tmp_path):
    pairs = [{"instruction": f"Do {i}.", "output_1": "One.", "output_2": f"Two {i} and more."} for i in range(40)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    command = [tmp_path / "pairs.json", "--annotators", "training", "--replicates", "5"]
    command += ["--aggregate", "dawid-skene", "--out", tmp_path / "labels.json"]
    summary = json.loads(annotate(*command, "--json"))
    assert summary["aggregated"]["votes_a_pair"] == 5.0
    assert len(json.loads((tmp_path / "labels.json").read_text())) == 40
    assert len(json.loads((tmp_path / "labels.votes.json").read_text())) == 200
    assert "way dawid-skene" in annotate(*command)  # and for people
