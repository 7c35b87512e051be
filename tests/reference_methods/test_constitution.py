"""A constitution as a preference model, and the study of labels whose principles are known."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import farm
from farm.base import rng
from farm.base.errors import UserError
from farm.policies import DESCRIPTOR, load
from farm.roles.protocols import Learning, PreferenceModel, Samples
from farm.votes.predicates import Predicate
from farm.worlds.matrix import TableFeatures
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures
from farm.worlds.pocket.world import DEMONSTRATIONS
from reference_methods.models.constitution import ByPrinciples, Constitution
from reference_methods.studies.constitutions import Constitutions, texts
from tests.farm.table_world import write
from tests.reference_methods.tables import policy_of


def quoted(n: int = 150) -> pd.DataFrame:
    """Pairs of the pocket grammar, preferred for more quotes; a tie where there are as many."""
    asked = grammar.all_requests().take(np.arange(0, 10 * n, 10))
    one, two = (grammar.write(asked, DEMONSTRATIONS, 1, name).strings() for name in ("a", "b"))
    prompts = grammar.request_texts(asked).strings()
    quotes = [PocketFeatures()(prompts, texts)["quote"].to_numpy() for texts in (one, two)]
    preference = 1.5 - np.sign(quotes[0] - quotes[1]) / 2
    return pd.DataFrame({"instruction": prompts, "output_1": one, "output_2": two, "preference": preference})


def side(pairs: pd.DataFrame, suffix: str) -> Samples:
    """One side as samples; their tokens are not looked at."""
    n, tokens = len(pairs), np.zeros(1, np.int32)
    texts = pairs["instruction"].tolist(), pairs["output" + suffix].tolist()
    return Samples(*texts, [tokens] * n, [tokens] * n, [np.zeros(1, np.float32)] * n, ["stop"] * n)


def learned(pairs: pd.DataFrame) -> ByPrinciples:
    policy = policy_of([0.5, 0.5])
    given = Learning(seed=1, policy=policy, prompts=pd.DataFrame({"instruction": []}), feedback={"pairs": pairs})
    return Constitution(features=PocketFeatures()).train(given)


def test_it_is_antisymmetric_decides_by_the_first_principle_and_comes_back_from_a_folder(tmp_path: Path) -> None:
    pairs = quoted()
    model = learned(pairs)
    assert (model.principles[0].feature, model.principles[0].more) == ("quote", True)
    first, second = (side(pairs, suffix) for suffix in ("_1", "_2"))
    logits = model.logits(first, second)
    assert torch.equal(logits, -model.logits(second, first))
    decided = (pairs["preference"] != 1.5).to_numpy()
    agree = np.sign(logits.numpy()[decided]) == np.sign(1.5 - pairs["preference"].to_numpy()[decided])
    assert agree.all() and decided.sum() > 30
    # log-odds of the first principle, which was never wrong on these pairs
    assert logits[decided].abs().numpy() == pytest.approx(np.log(decided.sum() + 1))
    model.save(tmp_path / "model")
    kept = load(tmp_path / "model")
    assert isinstance(kept, PreferenceModel) and kept == model
    summed = ByPrinciples(
        PocketFeatures(), (Predicate(feature="quote"), Predicate(feature="figure")), (1.0, 1.0), "sum"
    )
    assert set(summed.logits(first, second).tolist()) <= {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_what_cannot_be_read_off_or_kept_is_said(tmp_path: Path) -> None:
    pairs = quoted(20)
    with pytest.raises(UserError, match="no principle explains these 0 pairs"):
        learned(pairs.assign(preference=1.5))
    with pytest.raises(UserError, match="no annotated pairs"):
        learned(pairs[:0])
    model = ByPrinciples(TableFeatures(["a", "b"], np.array([0.0, 1.0])), (Predicate(feature="utility"),), (1.0,))
    with pytest.raises(UserError, match="cannot be kept"):
        model.save(tmp_path / "table")


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"class": "farm.worlds.pocket.gold.PocketFeatures", "weight": 2}, "`features` are no settings of PocketF"),
        ({"class": "farm.worlds.matrix.MatrixWorld", "utilities": [0.0]}, "cannot play the role Features"),
        ({"class": "tests.reference_methods.test_constitution.Weights"}, "it lacks `__call__`"),
        ({}, "is not an import path"),
        ([], "`features`"),
    ],
)
def test_a_file_that_names_no_features_is_one_sentence(features: object, said: str, tmp_path: Path) -> None:
    ByPrinciples(PocketFeatures(), (Predicate(feature="quote"),), (1.0,)).save(tmp_path)
    file = tmp_path / DESCRIPTOR
    file.write_text(json.dumps({**json.loads(file.read_text()), "features": features}))
    with pytest.raises(UserError, match=said) as caught:
        load(tmp_path)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


class Weights:
    """Not what features are: nothing can be called."""

    gold_weights: ClassVar[dict[str, float]] = {}


def test_a_game_learns_from_a_constitution_in_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`preference_model: constitution`: read off the annotated pairs once, kept, opened again and learnt from."""
    monkeypatch.chdir(tmp_path)
    game = {"use": "nash_md", "preference_model": "shared_preference", "steps": 3, "prompts_per_step": 8}
    named = {"methods": {"nash_md": game}, "reward_model": None, "preference_model": "constitution", "accuracy": True}
    write(tmp_path, **named)
    run = farm.run("table.yaml", out=tmp_path / "run")
    accuracy = pd.read_parquet(run.folder / "tables" / "accuracy.parquet")
    found = accuracy[(accuracy["model"] == "preference_model") & (accuracy["of"] == "gold utility")]["agrees"]
    assert found.mean() > 0.7 and not run.failures


def means(**settings: object) -> dict[str, float]:
    table = Constitutions(held_out=200, **settings).tables(1)["reconstruction"]  # type: ignore[arg-type]
    return table.groupby("method")["agrees"].mean().to_dict()


def test_it_explains_labels_that_the_judge_does_not_and_costs_where_they_agree() -> None:
    """[trend] the paper's signs, at a small size and one seed."""
    against, orthogonal, aligned = (means(labels=labels) for labels in ("adversary", "orthogonal", "gold"))
    assert against["default"] == 0.0 and against["constitution"] > 0.6
    assert orthogonal["default"] == pytest.approx(0.5, abs=0.12) and orthogonal["constitution"] > 0.65
    assert aligned["default"] == 1.0 and 0.6 < aligned["constitution"] < 1.0
    assert orthogonal["turned"] < 0.4
    assert means(labels="coin")["constitution"] == pytest.approx(0.5, abs=0.12)


def test_a_principle_that_seldom_applies_is_in_its_place_from_a_thousand_pairs_on() -> None:
    """[trend] quotes and figures, with a quarter of flips: the first two of 1,000 pairs, not in each draw of 200."""
    study, first = Constitutions(labels="orthogonal", flips=0.25), dict[int, list[bool]]()
    for seed in (1, 2, 3):
        found, gold, ids = texts(1800, seed)
        truth = study.labelled(found, gold, ids, seed)
        labels = np.where(rng.uniform(seed, "flipped label", ids) < study.flips, -truth, truth)
        for n in (200, 1000):
            rows = np.flatnonzero(truth != 0)[:n]
            principles = study.read_off(found.iloc[rows], labels[rows], ids[rows], seed)
            two = [(p.feature, p.more) for p in principles[:2]]
            first.setdefault(n, []).append(two == [("quote", True), ("figure", False)])
    assert all(first[1000]) and not all(first[200])


def test_a_study_draws_by_its_seed_and_says_what_it_found() -> None:
    one, again, other = (Constitutions(pairs=65, held_out=50).tables(seed) for seed in (1, 1, 2))
    assert one["reconstruction"].equals(again["reconstruction"]) and not one["reconstruction"].equals(
        other["reconstruction"]
    )
    assert one["principles"]["principle"].str.contains("quote").any()
    with pytest.raises(ValueError, match="are no ties"):
        Constitutions(pairs=2400).tables(1)
