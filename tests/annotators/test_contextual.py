"""People in a context: who is asked, what is written down, and pairs that are asked in one context after the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from annotators.people.contextual import Contextual
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import Pool
from farm.asking.ask import ask
from farm.base.errors import UserError
from farm.feedback.kind import kind
from farm.tables.records import swapped
from farm.worlds.text_features import TextFeatures

NAMES = ["brief", "long"]


def people(**settings: object) -> Contextual:
    features = TextFeatures()
    persons = [
        LogitAnnotator(features, name=name, weights={}, length_bias=bias, temperature=1.0)
        for name, bias in zip(NAMES, (-50.0, 50.0), strict=True)
    ]
    return Contextual(list(persons), **settings)  # type: ignore[arg-type]


@pytest.fixture
def pairs() -> pd.DataFrame:
    texts = [("one two three " * (1 + n % 4), "one two " * (4 + n % 3)) for n in range(200)]
    table = pd.DataFrame(texts, columns=["output_1", "output_2"])
    return table.assign(instruction=[f"request {n}" for n in range(200)])


def test_a_row_says_its_context_and_the_label_is_that_persons(pairs: pd.DataFrame) -> None:
    table = people().annotate(pairs, seed=1)
    assert (table["context"] == table["annotator"]).all()
    assert 60 < (table["context"] == "brief").sum() < 140
    first_is_longer = pairs["output_1"].str.split().str.len() > pairs["output_2"].str.split().str.len()
    equal = pairs["output_1"].str.split().str.len() == pairs["output_2"].str.split().str.len()
    wanted = np.where(first_is_longer == (table["context"] == "long"), 1.0, 2.0)
    assert (table["preference"] == wanted)[~equal].all()


def test_without_the_column_it_is_a_pool(pairs: pd.DataFrame) -> None:
    mine = people(name="pool")
    plain = Pool(mine.annotators).annotate(pairs, seed=3)
    pd.testing.assert_frame_equal(mine.annotate(pairs, seed=3).drop(columns="context"), plain)


def test_reversals_ask_the_same_pair_in_the_other_context(pairs: pd.DataFrame) -> None:
    there, back, again = (people(reversals=True).annotate(pairs, seed=1, replicate=r) for r in range(3))
    assert (there["context"] != back["context"]).all() and (there["context"] == again["context"]).all()
    decided = (there["preference"] != 1.5) & (pairs["output_1"].str.len() != pairs["output_2"].str.len())
    assert (there["preference"] + back["preference"] == 3.0)[decided].mean() > 0.9


def test_the_order_of_the_outputs_and_of_the_rows_changes_no_context(pairs: pd.DataFrame) -> None:
    table = people().annotate(pairs, seed=1)
    turned = people().annotate(swapped(pairs, np.ones(len(pairs), dtype=bool)), seed=1)
    assert (table["context"] == turned["context"]).all()
    assert people().annotate(pairs[::-1], seed=1)[::-1]["context"].tolist() == table["context"].tolist()


def test_a_row_that_comes_with_a_context_is_asked_in_it(pairs: pd.DataFrame) -> None:
    given = pairs.assign(context="long")
    assert (people().annotate(given, seed=1)["annotator"] == "long").all()
    some = pairs.assign(context=np.where(np.arange(200) < 5, "brief", None))
    table = people().annotate(some, seed=1)
    assert (table["context"][:5] == "brief").all()
    assert table["context"][5:].tolist() == people().annotate(pairs, seed=1)["context"][5:].tolist()
    with pytest.raises(UserError, match="row 0: there is no context 'lnog'; did you mean `long`"):
        people().annotate(pairs.assign(context="lnog"), seed=1)


def test_what_is_asked_keeps_the_context(pairs: pd.DataFrame) -> None:
    table = ask(kind("pairs"), people(), pairs.iloc[:20], seed=4)
    assert set(table["context"]) <= set(NAMES) and (table["context"] == table["annotator"]).all()
