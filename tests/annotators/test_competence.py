"""Majority, Dawid and Skene, GLAD: planted truths, confusions and abilities are found again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from annotators.noise.flip import Flip
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import Pool
from farm.votes.competence import Votes, dawid_skene, glad, majority, votes


def planted(
    confusion: np.ndarray, items: int, seed: int, prior: np.ndarray | None = None, per_item: int | None = None
) -> tuple[Votes, np.ndarray]:
    """Votes of annotators with these confusion matrices [annotators, truth, says] on items of known truth."""
    generator = np.random.Generator(np.random.Philox(seed))
    annotators, k = confusion.shape[:2]
    truth = generator.choice(k, items, p=prior)
    if per_item is None:
        who = np.tile(np.arange(annotators), (items, 1))
    else:
        who = np.argsort(generator.random((items, annotators)), axis=1)[:, :per_item]
    item = np.repeat(np.arange(items), who.shape[1])
    cumulative = confusion[who.ravel(), truth[item]].cumsum(axis=1)
    label = (generator.random(len(item))[:, None] > cumulative).sum(axis=1)
    return Votes(item, who.ravel(), label, items, annotators, k), truth


def one_coin(accuracies: list[float]) -> np.ndarray:
    return np.array([[[p, 1 - p], [1 - p, p]] for p in accuracies])


def test_dawid_skene_finds_planted_confusions():
    """1000 items with five votes: every cell of the confusion matrices within .05 in the root mean square."""
    confusion = np.array(
        [[[0.9, 0.1], [0.3, 0.7]], [[0.7, 0.3], [0.1, 0.9]], [[0.8, 0.2], [0.2, 0.8]], [[0.95, 0.05], [0.15, 0.85]],
         [[0.6, 0.4], [0.25, 0.75]]]
    )  # fmt: skip
    given, truth = planted(confusion, 1000, seed=1)
    found = dawid_skene(given)
    assert np.sqrt(np.square(found.confusion - confusion).mean()) < 0.05
    np.testing.assert_allclose(found.accuracy, np.einsum("ajj->a", confusion) / 2, atol=0.05)
    assert (found.posterior.argmax(1) == truth).mean() >= (majority(given).argmax(1) == truth).mean()


def test_dawid_skene_beats_the_majority_where_competences_differ():
    given, truth = planted(one_coin([0.97, 0.95, 0.55, 0.55, 0.55, 0.55, 0.55]), 2000, seed=2)
    by_majority = (majority(given).argmax(1) == truth).mean()
    assert (dawid_skene(given).posterior.argmax(1) == truth).mean() > by_majority + 0.05


def test_dawid_skene_with_three_labels_and_missing_votes():
    confusion = np.stack(
        [np.full((3, 3), (1 - p) / 2) + np.eye(3) * (p - (1 - p) / 2) for p in (0.9, 0.8, 0.7, 0.6) * 3]
    )
    given, _ = planted(confusion, 3000, seed=3, prior=np.array([0.5, 0.3, 0.2]), per_item=5)
    found = dawid_skene(given)
    np.testing.assert_allclose(found.prior, [0.5, 0.3, 0.2], atol=0.04)
    assert np.sqrt(np.square(found.confusion - confusion).mean()) < 0.05
    np.testing.assert_allclose(found.posterior.sum(1), 1)


def test_the_likelihood_rises_to_a_fixed_point():
    given, _ = planted(one_coin([0.9, 0.7, 0.6]), 400, seed=4)
    likelihoods = [dawid_skene(given, limit=steps, smoothing=0.0).log_likelihood for steps in (1, 2, 5, 20, 200)]
    assert np.all(np.diff(likelihoods) >= -1e-9)
    assert dawid_skene(given).iterations < 500


def test_adversaries_are_turned_round():
    """Someone who is wrong nine times in ten is as good as someone who is right nine times in ten."""
    given, truth = planted(one_coin([0.9, 0.85, 0.8, 0.1, 0.15]), 1000, seed=5)
    assert (majority(given).argmax(1) == truth).mean() < 0.85
    found = glad(given)
    assert (found.ability[3:] < 0).all() and (found.ability[:3] > 0).all()
    assert (found.posterior.argmax(1) == truth).mean() > 0.93
    assert (dawid_skene(given).accuracy[3:] < 0.2).all()


def test_glad_finds_abilities_and_difficulties():
    generator = np.random.Generator(np.random.Philox(6))
    ability, easiness = np.linspace(0.2, 3.0, 12), np.exp(generator.normal(0, 1, 800))
    truth = generator.integers(0, 2, 800)
    item, annotator = (x.ravel() for x in np.meshgrid(np.arange(800), np.arange(12), indexing="ij"))
    right = generator.random(len(item)) < expit(ability[annotator] * easiness[item])
    given = Votes(item, annotator, np.where(right, truth[item], 1 - truth[item]), 800, 12)
    found = glad(given)
    assert found.converged
    assert np.corrcoef(found.ability, ability)[0, 1] > 0.95
    assert np.corrcoef(np.log(found.easiness), np.log(easiness))[0, 1] > 0.6
    assert (found.posterior.argmax(1) == truth).mean() >= (majority(given).argmax(1) == truth).mean()


def test_gradient_of_glad(monkeypatch):
    import farm.votes.competence as module

    given, _ = planted(one_coin([0.9, 0.7, 0.4]), 30, seed=7)
    seen = {}
    monkeypatch.setattr(module, "minimize", lambda loss, start, **_: seen.update(loss=loss, start=start) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        glad(given)
    point = seen["start"] + np.random.Generator(np.random.Philox(1)).normal(0, 0.5, len(seen["start"]))
    assert check_grad(lambda x: seen["loss"](x)[0], lambda x: seen["loss"](x)[1], point) < 1e-3


def test_votes_of_a_table_do_not_depend_on_the_order_of_the_outputs(features_of, pairs_of):
    features = features_of(u=np.linspace(0, 3, 30))
    generator = np.random.Generator(np.random.Philox(8))
    pairs = pairs_of(*generator.integers(0, 30, (2, 500)))
    skill = {"good": 0.05, "fair": 0.2, "poor": 0.4}
    members = [Flip(LogitAnnotator(features, name=n, greedy=True), rate) for n, rate in skill.items()]
    tables = [m.annotate(pairs, seed=1).assign(annotator=n) for m, n in zip(members, skill, strict=True)]
    swap = pairs.rename(columns={"output_1": "output_2", "output_2": "output_1"})
    back = [m.annotate(swap, seed=1).assign(annotator=n) for m, n in zip(members, skill, strict=True)]
    given, items, names = votes(pd.concat(tables))
    mixed, _, _ = votes(pd.concat([tables[0], back[1], tables[2]]))
    assert names == list(skill)
    assert len(items) == given.items == (pairs["output_1"] != pairs["output_2"]).sum()
    for column in ("item", "annotator", "label"):
        np.testing.assert_array_equal(getattr(given, column), getattr(mixed, column))
    better = (items["output_1"].astype(int) < items["output_2"].astype(int)).to_numpy().astype(int)
    assert (dawid_skene(given).posterior.argmax(1) == better).mean() > 0.9
    np.testing.assert_allclose(dawid_skene(given).accuracy, [1 - r for r in skill.values()], atol=0.06)


def test_majority_shares_even_splits():
    given = Votes(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2]), np.array([0, 1, 1, 1, 0]), 2, 3)
    np.testing.assert_array_equal(majority(given), [[0.5, 0.5], [0, 1]])


def test_a_pool_can_be_taken_apart_again(features_of, pairs_of):
    """Each pair is seen by three of a pool's members; their flip rates are found from the votes alone."""
    features = features_of(u=np.linspace(0, 3, 60))
    generator = np.random.Generator(np.random.Philox(9))
    pairs = pairs_of(*generator.integers(0, 60, (2, 4000)))
    members = [
        LogitAnnotator(features, name=f"m{i}", greedy=False, temperature=1e-6, flip=r)
        for i, r in enumerate((0.05, 0.15, 0.25, 0.35))
    ]
    table = pd.concat([Pool(members).annotate(pairs, seed=1, replicate=r) for r in range(4)])
    given, _, names = votes(table)
    accuracy = dict(zip(names, dawid_skene(given).accuracy, strict=True))
    for name, rate in zip(("m0", "m1", "m2", "m3"), (0.05, 0.15, 0.25, 0.35), strict=True):
        assert accuracy[name] == pytest.approx(1 - rate, abs=0.04)
