"""The cache: nothing is asked twice, and nothing stale is served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from annotators.noise.flip import Flip
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import PersonaPool, Pool
from farm.asking.ask import ask
from farm.asking.kept import keys as addresses
from farm.base.errors import UserError
from farm.feedback.pairs import KIND as PAIRS
from farm.storage.store import Store
from farm.tables.records import annotation_table


@dataclass(frozen=True)
class Judge:
    """A judge that is paid, and fails on the outputs it is told to fail on."""

    prompt: str = "which is better?"
    failures: dict[str, str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def description(self) -> object:
        return {"prompt": self.prompt}

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        self.asked.append(len(pairs))
        status = pairs["output_1"].map(lambda t: self.failures.get(t, "ok")).to_numpy(dtype=object)
        label = np.where(status == "ok", 2.0, np.nan)
        return annotation_table(
            pairs,
            "judge",
            label,
            np.full(len(pairs), np.nan),
            seed=seed,
            replicate=replicate,
            status=status,
            price=0.01,
            input_tokens=7,
        ).assign(raw_completion="2")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite")


def test_nothing_is_paid_twice(store, pairs_of):
    judge = Judge()
    pairs = pairs_of(range(10), [99] * 10)
    first = ask(PAIRS, judge, pairs.iloc[:6], seed=1, store=store)
    both = ask(PAIRS, judge, pairs, seed=1, store=store)
    assert judge.asked == [6, 4]
    assert both["cached"].tolist() == [True] * 6 + [False] * 4
    assert both.loc[~both["cached"], "price"].sum() == pytest.approx(0.04)
    pd.testing.assert_frame_equal(both.iloc[:6].drop(columns="cached"), first.drop(columns="cached"), check_dtype=False)
    totals = store.totals().set_index("kind").loc["annotation"]
    assert totals["rows"] == 10 and totals["price"] == pytest.approx(0.1) and totals["input_tokens"] == 70


def test_failed_calls_are_asked_again_and_bad_answers_are_kept(store, pairs_of):
    judge = Judge(failures={"1": "error", "2": "unparseable", "3": "refused"})
    pairs = pairs_of(range(5), [99] * 5)
    ask(PAIRS, judge, pairs, seed=1, store=store, order="given")
    judge.failures.clear()
    table = ask(PAIRS, judge, pairs, seed=1, store=store, order="given")
    assert judge.asked == [5, 1]
    assert table["status"].tolist() == ["ok", "ok", "unparseable", "refused", "ok"]
    assert table["preference"].isna().tolist() == [False, False, True, True, False]
    assert table["raw_completion"].tolist() == ["2"] * 5


def test_whatever_determines_a_verdict_is_in_its_address(store, pairs_of):
    pairs = pairs_of([0, 1], [2, 3])
    base = addresses(PAIRS, Judge(), pairs, 1)
    others = [
        addresses(PAIRS, Judge(prompt="which is worse?"), pairs, 1),
        addresses(PAIRS, Judge(), pairs, 2),
        addresses(PAIRS, Judge(), pairs, 1, 1),
        addresses(PAIRS, Flip(Judge()), pairs, 1),
        addresses(PAIRS, Flip(Judge(), 0.1), pairs, 1),
        addresses(PAIRS, Judge(), pairs.assign(generator_1="other"), 1),
        addresses(PAIRS, Judge(), pairs.assign(agreement_1=1.0, agreement_2=0.0), 1),
        addresses(PAIRS, Judge(), pairs.assign(instruction="other"), 1),
        addresses(PAIRS, Judge(), pairs.rename(columns={"output_1": "output_2", "output_2": "output_1"}), 1),
    ]
    everything = [*base, *(key for keys in others for key in keys)]
    assert len(set(everything)) == len(everything) and {len(key) for key in everything} == {16}
    assert addresses(PAIRS, Judge(), pairs.iloc[::-1], 1) == base[::-1]


def test_changed_parameters_of_a_nested_annotator_are_other_addresses(store, features_of, pairs_of):
    features, pairs = features_of(u=[0.0, 1.0]), pairs_of([0], [1])
    one = LogitAnnotator(features)
    variants = [
        one,
        replace(one, temperature=2.0),
        replace(one, weights={"u": 2.0}),
        replace(one, features=features_of(u=[0.0, 2.0])),
        PersonaPool(features),
        PersonaPool(features, seed=1),
        Pool([one, replace(one, name="b")]),
        Pool([one, replace(one, name="b")], weights=[1.0, 2.0]),
    ]
    keys = [addresses(PAIRS, v, pairs, 1)[0] for v in variants]
    assert len(set(keys)) == len(keys)


def test_ordinary_objects_are_described_by_what_they_hold(store, pairs_of):
    class Plain:
        def __init__(self, scale: object) -> None:
            self.scale, self.gold_weights = scale, {"u": 1.0}

        def __call__(self, instructions: object, outputs: object) -> pd.DataFrame:
            raise AssertionError

    pairs = pairs_of([0], [1])
    held = [1.0, 2.0, np.array([1.0]), np.array([2.0]), {"a": [1]}, pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})]
    keys = [addresses(PAIRS, LogitAnnotator(Plain(value)), pairs, 1)[0] for value in held]
    assert len(set(keys)) == len(keys)
    assert keys[0] == addresses(PAIRS, LogitAnnotator(Plain(1.0)), pairs, 1)[0]
    for hidden in (lambda: 1, iter([1]), object()):
        with pytest.raises(UserError, match="cannot be cached"):
            ask(PAIRS, LogitAnnotator(Plain(hidden)), pairs, seed=1, store=store)


def test_threads_share_a_store(store, features_of, pairs_of):
    features = features_of(u=np.linspace(0, 2, 50))
    generator = np.random.Generator(np.random.Philox(1))
    pairs = pairs_of(*generator.integers(0, 50, (2, 600)))

    def judged(rows: pd.DataFrame) -> pd.DataFrame:
        return ask(PAIRS, PersonaPool(features), rows, seed=1, store=store, order="given")

    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda i: judged(pairs.iloc[i : i + 100]), range(0, 600, 50)))
    assert store.totals()["rows"].sum() == 600
    whole = PersonaPool(features).annotate(pairs, seed=1)
    for part in parts:
        np.testing.assert_array_equal(part["preference"], whole.loc[part.index, "preference"])


def test_no_pairs(store, pairs_of):
    table = ask(PAIRS, Judge(), pairs_of(np.zeros(0, int), np.zeros(0, int)), seed=1, store=store)
    assert len(table) == 0 and {"preference", "status", "cached"} <= set(table.columns)
