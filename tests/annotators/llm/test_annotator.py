"""The annotator itself: probabilities, draws, orders, several pairs in a prompt, recorded judges."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotators.llm.annotator import LLMAnnotator, label_from
from annotators.llm.backends import mock
from annotators.llm.completion import Completion, Request
from annotators.llm.prompt import shown
from annotators.llm.session import session
from farm.asking.givers import description
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.storage.store import Store
from farm.tables.formats import write_annotations
from farm.tables.records import swapped
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import FaultServer


def test_probabilities_are_a_softmax_over_the_labels(store: Store) -> None:
    with FaultServer() as server:
        table = LLMAnnotator("openai/judge", base_url=server.url, store=store).annotate(make_pairs(10), seed=0)
        assert server.seen[0]["logprobs"] is True
        assert server.seen[0]["max_tokens"] == 1
    expected = 1 / (1 + math.exp(-2.4))
    assert table["p_first"].to_numpy() == pytest.approx(np.where(longer(make_pairs(10)) == 1, expected, 1 - expected))


def test_without_probabilities_the_text_is_read(store: Store) -> None:
    with FaultServer(logprobs=False) as server:
        table = LLMAnnotator("openai/judge", base_url=server.url, store=store).annotate(make_pairs(10), seed=0)
    assert (table["preference"] == longer(make_pairs(10))).all()
    assert table["p_first"].isna().all()


def test_the_temperature_of_a_draw_from_probabilities() -> None:
    labels = {"1": math.log(0.8), "2": math.log(0.1)}
    assert label_from(labels, 0.0, 0.999) == (1.0, pytest.approx(8 / 9))
    assert label_from(labels, 1.0, 8 / 9 - 1e-6)[0] == 1.0
    assert label_from(labels, 1.0, 8 / 9 + 1e-6)[0] == 2.0
    assert label_from(labels, 2.0, 0.5)[1] == pytest.approx(math.sqrt(8) / (1 + math.sqrt(8)))
    assert label_from({"1": -1.0, "2": -1.0}, 0.0, 0.3) == (1.5, 0.5)


def test_draws_follow_the_probability_and_mirror_with_the_order(store: Store) -> None:
    @mock.script("seventy for the longer")
    def _(request: Request) -> Completion:
        pair = shown(request.user)[0]
        high, low = math.log(0.7), math.log(0.3)
        first = len(pair.first) >= len(pair.second)
        return Completion("1", labels={"1": high if first else low, "2": low if first else high})

    pairs = make_pairs(4000)
    annotator = LLMAnnotator("mock/seventy for the longer", temperature=1.0, store=store)
    table = annotator.annotate(pairs, seed=0)
    share = (table["preference"] == longer(pairs)).mean()
    assert abs(share - 0.7) < 4 * math.sqrt(0.21 / 4000)
    everywhere = np.ones(len(pairs), dtype=bool)
    back = swapped(annotator.annotate(swapped(pairs, everywhere), seed=0), everywhere)
    assert (back["preference"] == table["preference"]).all()
    assert back["p_first"].to_numpy() == pytest.approx(table["p_first"].to_numpy())
    other = annotator.annotate(pairs, seed=0, replicate=1)
    assert 0.35 < (other["preference"] != table["preference"]).mean() < 0.49  # 2 (.7) (.3) = .42


def test_a_row_does_not_depend_on_its_neighbours_their_order_or_number(store: Store) -> None:
    pairs = make_pairs(60)
    annotator = LLMAnnotator("mock/coin", temperature=1.0, store=store)
    whole = annotator.annotate(pairs, seed=3)
    part = annotator.annotate(pairs.iloc[[41, 7, 20]], seed=3)
    assert (part["preference"] == whole["preference"].iloc[[41, 7, 20]]).all()


def test_random_order_hides_a_bias_for_the_first_place(store: Store) -> None:
    pairs = make_pairs(400)
    table = LLMAnnotator("mock/first", order="random", store=store).annotate(pairs, seed=0)
    assert abs((table["preference"] == 1).mean() - 0.5) < 0.1
    assert (table["preference"] == table["shown_first"]).all()
    assert (LLMAnnotator("mock/first", store=store).annotate(pairs, seed=0)["preference"] == 1).all()


def test_both_orders_find_a_bias_for_the_first_place(store: Store) -> None:
    table = LLMAnnotator("mock/first", order="both", store=store).annotate(make_pairs(20), seed=0)
    assert (table["preference"] == 1.5).all()
    assert not table["consistent"].any()
    fair = LLMAnnotator("mock/longer", order="both", store=store).annotate(make_pairs(20), seed=0)
    assert fair["consistent"].all()


@pytest.mark.parametrize("name", ["batch", "chain_of_thought", "rubric", "persona"])
def test_several_pairs_in_one_prompt(name: str, store: Store) -> None:
    pairs = make_pairs(23)
    with session() as run:
        table = LLMAnnotator("mock/longer", name, batch=5, persona="You are Ann.", store=store).annotate(pairs, seed=0)
    assert run.tally.asked == 5
    assert (table["preference"] == longer(pairs)).all()
    assert table["input_tokens"].sum() == pytest.approx(run.tally.input_tokens)


def test_a_missing_verdict_costs_only_its_own_row(store: Store) -> None:
    @mock.script("forgets the third")
    def _(request: Request) -> str:
        return "\n".join(f"Verdict {k}: 1" for k in range(1, len(shown(request.user)) + 1) if k != 3)

    table = LLMAnnotator("mock/forgets the third", "batch", batch=5, store=store).annotate(make_pairs(25), seed=0)
    assert table["status"].value_counts().to_dict() == {"ok": 20, "unparseable": 5}


def test_identical_outputs_are_a_tie_without_a_question(store: Store) -> None:
    pairs = make_pairs(6).assign(output_2=lambda t: t["output_1"])
    with session() as run:
        table = LLMAnnotator("mock/first", store=store).annotate(pairs, seed=0)
    assert run.tally.questions == 0
    assert (table["preference"] == 1.5).all()


def test_no_pairs(store: Store) -> None:
    table = LLMAnnotator("mock/first", store=store).annotate(make_pairs(0), seed=0)
    assert len(table) == 0
    assert {"preference", "status", "answer"} <= set(table.columns)


def test_a_recorded_judge_is_replayed_in_either_order(tmp_path: Path, store: Store) -> None:
    recorded = make_pairs(12).assign(annotator="gone", preference=np.linspace(1, 2, 12))
    write_annotations(recorded, tmp_path / "recorded.json")
    pairs = make_pairs(14)
    annotator = LLMAnnotator(f"replay/{tmp_path / 'recorded.json'}", "plain_line", store=store)
    table = annotator.annotate(pairs, seed=0)
    assert table["preference"][:12].to_numpy() == pytest.approx(np.linspace(1, 2, 12), abs=1e-5)
    assert (table["status"][12:] == "error").all()
    everywhere = np.ones(14, dtype=bool)
    back = annotator.annotate(swapped(pairs, everywhere), seed=0)
    assert back["preference"][:12].to_numpy() == pytest.approx(np.linspace(2, 1, 12), abs=1e-5)


def test_published_annotations_are_replayed(shared_data: Callable[[str], Path], tmp_path: Path, store: Store) -> None:
    """648 pairs that GPT-4 judged four times: the replicates are its four answers."""
    pairs = pd.read_parquet(shared_data("alpaca_eval/human/crossannotation_pairs_648.parquet"))
    labels = pd.read_parquet(shared_data("alpaca_eval/human/gpt4_crossannotations_648x4.parquet"))
    labels = labels[labels["annotator"] == "gpt4_b1"].sort_values(["pair_id", "seed"])
    pairs = pairs[["pair_id", "instruction", "output_1", "output_2"]].drop_duplicates(
        ["instruction", "output_1", "output_2"], keep=False
    )
    write_annotations(labels.merge(pairs, on="pair_id"), tmp_path / "gpt4.json")
    annotator = LLMAnnotator(f"replay/{tmp_path / 'gpt4.json'}", "plain_line", store=store)
    for replicate in range(4):
        table = annotator.annotate(pairs, seed=0, replicate=replicate)
        own = labels[labels["seed"] == replicate].set_index("pair_id")["preference"].reindex(table["pair_id"])
        known = own.notna().to_numpy() & (table["output_1"] != table["output_2"]).to_numpy()
        assert known.sum() > 600
        complete = known & (labels.groupby("pair_id")["preference"].count().reindex(table["pair_id"]) == 4).to_numpy()
        assert (table["preference"].to_numpy()[complete] == own.replace(0, 1.5).to_numpy()[complete]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "gpt-4"}, "provider/name"),
        ({"model": "opnai/x"}, "did you mean `openai`"),
        ({"model": "mock/nobody"}, None),
        ({"prompt": "plian"}, "did you mean `plain`"),
        ({"prompt": "rating"}, "for rating"),
        ({"batch": 3}, "batch must be 1"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"prompt": "persona"}, "needs a `persona`"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(settings: dict[str, object], message: str | None) -> None:
    spec = {"class": "annotators.llm.annotator.LLMAnnotator", "model": "mock/longer", **settings}
    if message is None:
        with pytest.raises(UserError, match="no such script"):
            config.build(Annotator, spec).annotate(make_pairs(1), seed=0)
        return
    with pytest.raises(UserError, match=message):
        config.build(Annotator, spec)


def test_the_description_names_all_that_matters_and_no_store(store: Store) -> None:
    annotator = LLMAnnotator("mock/longer", store=store)
    said = str(description(annotator))
    assert "mock/longer" in said
    assert "version" in said
    assert str(store.path) not in said


def test_from_yaml_the_store_is_handed_over(store: Store) -> None:
    spec = {"class": "annotators.llm.annotator.LLMAnnotator", "model": "mock/longer"}
    config.build(Annotator, spec, Context(store=store)).annotate(make_pairs(3), seed=0)
    assert int(store.totals()["rows"].sum()) == 3
