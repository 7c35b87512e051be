"""A verdict depends on (seed, replicate, texts) only: never on order, batch, thread or process."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.noise.both_orders import BothOrders
from annotators.noise.difficulty import Difficulty
from annotators.noise.flip import Flip
from annotators.noise.lapse import Lapse
from annotators.noise.tie_band import TieBand
from annotators.people.pool import PersonaPool, Pool
from farm.asking.ask import ask
from farm.feedback.pairs import KIND as PAIRS
from farm.roles.protocols import Annotator
from farm.storage.store import Store

JUDGES = ["pool", "training", "by instruction", "both orders", "nested"]


@pytest.fixture(scope="module")
def judge(request, features_of) -> Annotator:
    generator = np.random.Generator(np.random.Philox(11))
    features = features_of(
        {f"u{k}": 1.0 - k / 9 for k in range(7)},
        **{f"u{k}": generator.normal(size=40) for k in range(7)},
        length=generator.integers(1, 90, 40),
        lists=generator.integers(0, 2, 40),
    )
    pool = PersonaPool(features, position_bias_spread=0.4, list_bias_spread=0.3, cycle=0.6, lapse=0.05)
    return {
        "pool": pool,
        "training": Flip(pool),
        "by instruction": Flip(PersonaPool(features, assign="instruction"), key="instruction"),
        "both orders": BothOrders(pool),
        "nested": TieBand(Lapse(Pool([Difficulty(pool), Flip(pool)]))),
    }[request.param]


@pytest.fixture(scope="module")
def pairs(pairs_of):
    generator = np.random.Generator(np.random.Philox(12))
    return pairs_of(*generator.integers(0, 40, (2, 700)))


@pytest.fixture(scope="module")
def whole(judge, pairs):
    return judge.annotate(pairs, seed=3, replicate=1)


@pytest.mark.parametrize("judge", JUDGES, indirect=True)
@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 700), max_size=5))
def test_neither_order_nor_batches_change_a_verdict(judge, pairs, whole, order, cuts):
    rows = list(range(len(pairs)))
    order.shuffle(rows)
    bounds = [0, *sorted(cuts), len(rows)]
    parts = [judge.annotate(pairs.iloc[rows[a:b]], seed=3, replicate=1) for a, b in itertools.pairwise(bounds)]
    pd.testing.assert_frame_equal(pd.concat([p for p in parts if len(p)]).sort_index(), whole, check_exact=True)


@pytest.mark.parametrize("judge", JUDGES, indirect=True)
def test_threads_change_no_verdict(judge, pairs):
    whole = judge.annotate(pairs, seed=3)
    chunks = [pairs.iloc[i : i + 50] for i in range(0, len(pairs), 50)]
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda chunk: judge.annotate(chunk, seed=3), chunks))
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_exact=True)


@pytest.mark.parametrize("judge", JUDGES, indirect=True)
def test_seeds_and_replicates_do_change_verdicts(judge, pairs):
    base = judge.annotate(pairs, seed=3)["preference"]
    for other in (judge.annotate(pairs, seed=4), judge.annotate(pairs, seed=3, replicate=1)):
        assert 0.02 < (base != other["preference"]).mean() < 0.9


def test_known_verdicts(features_of, pairs_of):
    """Verdicts of a fixed seed, written down: a change here breaks the reproduction of published runs."""
    features = features_of(u=[0.0, 0.5, 1.0])
    table = Flip(PersonaPool(features)).annotate(pairs_of([0, 1, 2, 0, 1, 2, 1, 1], [1, 2, 0, 2, 0, 1, 1, 0]), seed=1)
    assert table["preference"].tolist() == KNOWN_LABELS
    assert table["annotator"].tolist() == KNOWN_NAMES


KNOWN_LABELS = [1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.5, 2.0]
KNOWN_NAMES = [f"persona-0-{k:02d}" for k in (9, 5, 1, 12, 7, 3, 5, 8)]


def test_another_process_gives_the_same_verdicts(pairs_of):
    """Hash randomisation of the interpreter must not reach a draw."""
    code = (
        "import pandas as pd; from annotators.noise.flip import Flip\n"
        "from annotators.people.logit import LogitAnnotator\n"
        "class F:\n"
        "    gold_weights = {'a': 1.0}\n"
        "    def __call__(self, i, o): return pd.DataFrame({'a': [float(x) for x in o]})\n"
        "p = pd.DataFrame({'instruction': 'x', 'output_1': [str(i) for i in range(200)], 'output_2': '100'})\n"
        "t = Flip(LogitAnnotator(F(), temperature=30.0)).annotate(p, seed=1)\n"
        "print(t['preference'].tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": h}, capture_output=True, text=True, check=True
        ).stdout
        for h in ("1", "2")
    }
    assert len(said) == 1 and "1.0, 2.0" in said.pop()


def test_cached_verdicts_are_the_fresh_ones(features_of, pairs, tmp_path):
    features = features_of(u=np.linspace(0, 3, 40))
    plain = BothOrders(Flip(PersonaPool(features)))
    store = Store(tmp_path / "store.sqlite")
    fresh = plain.annotate(pairs, seed=1)
    for expected in (False, True):
        table = ask(PAIRS, plain, pairs, seed=1, store=store, order="given")
        assert (table["cached"] == expected).all()
        pd.testing.assert_frame_equal(table[fresh.columns], fresh, check_exact=True)
