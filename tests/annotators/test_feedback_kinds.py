"""Ratings, reactions, rankings and critiques of simulated people: closed forms, biases, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from annotators.feedback.answers import said_by
from annotators.feedback.by_kind import ByKind
from annotators.feedback.critiques import PersonCritic
from annotators.feedback.rankings import PersonRanker
from annotators.feedback.ratings import PersonRater, inconsistency
from annotators.feedback.reactions import PersonReactor
from annotators.feedback.sets import SetAppraiser
from annotators.llm.feedback import LLMCritic, LLMRanker, LLMRater
from annotators.people.logit import LogitAnnotator
from farm.asking.givers import gives, is_free
from farm.base.errors import UserError
from farm.feedback.kind import kinds
from farm.roles import config
from farm.roles.givers import Critic, Ranker, Rater, Reactor
from farm.roles.protocols import Annotator, Context, World
from farm.worlds.text_features import TextFeatures


def outputs_of(texts) -> pd.DataFrame:
    return pd.DataFrame({"instruction": [f"x {i}" for i in range(len(texts))], "output": [str(t) for t in texts]})


def test_simulated_people_and_language_models_have_one_interface(features_of):
    for kind, giver in {
        Rater: PersonRater(features_of(u=[0.0])), Reactor: PersonReactor(features_of(u=[0.0])),
        Ranker: PersonRanker(features_of(u=[0.0])), Critic: PersonCritic(features_of(u=[0.0])),
    }.items():  # fmt: skip
        assert isinstance(giver, kind)
    assert isinstance(LLMRater("mock/longer"), Rater) and isinstance(LLMRanker("mock/longer"), Ranker)
    assert isinstance(LLMCritic("mock/longer"), Critic) and isinstance(LLMRater("mock/longer"), Annotator)
    for kind in kinds().values():  # a kind's protocol asks for its verb, and a room of named ones
        assert hasattr(kind.giver, kind.verb) and config.ROOM[kind.giver] == "annotators"


def test_ratings_are_the_rounded_utility(features_of):
    rater = PersonRater(features_of(u=[-9.0, 0.0, 1.4, 9.0]), noise=0.0)
    assert rater.rate(outputs_of([0, 1, 2, 3]), seed=0)["score"].tolist() == [1, 4, 5, 7]
    noisy = PersonRater(features_of(u=[0.0]), noise=1.0).rate(outputs_of([0] * 6000), seed=0)["score"]
    assert noisy.mean() == pytest.approx(4, abs=0.05) and noisy.std() == pytest.approx(np.sqrt(1 + 1 / 12), abs=0.05)
    aspects = PersonRater(features_of(u=[1.0], v=[-2.0]), noise=0.0, aspects={"a": {"u": 1.0}, "b": {"v": 1.0}})
    row = aspects.rate(outputs_of([0]), seed=0).iloc[0]
    assert (row["a"], row["b"], row["score"]) == (5, 2, 3.5)


def test_some_of_the_lowest_overall_ratings_are_false_tops(features_of):
    features, texts = features_of(u=[-9.0, 0.0, 9.0]), outputs_of([0, 1, 2] * 2000)
    plain, false = (PersonRater(features, false_tops=share).rate(texts, seed=3)["score"] for share in (0.0, 0.4))
    lowest = plain == 1
    assert (false[~lowest] == plain[~lowest]).all() and set(false[lowest]) == {1, 7}
    assert (false[lowest] == 7).mean() == pytest.approx(0.4, abs=0.05)
    again = PersonRater(features, false_tops=0.4).rate(texts[::-1], seed=3)["score"]
    assert again.tolist() == false.tolist()[::-1]  # keyed by the output
    with pytest.raises(ValueError, match="`false_tops` are of overall ratings"):
        PersonRater(features, false_tops=0.1, aspects={"a": {"u": 1.0}})


def test_a_mean_of_aspects_has_no_halo_and_an_overall_rating_may(features_of):
    """Two answers as good as each other, one of them showy: only the overall rating sees that."""
    features = features_of(gold={"u": 1.0, "v": 1.0}, u=[1.0, 1.0], v=[0.0, 0.0], show=[0.0, 2.0])
    halo = PersonRater(features, noise=0.0, weights={"u": 1.0, "v": 1.0, "show": 1.0})
    aspects = PersonRater(features, noise=0.0, aspects={"first": {"u": 1.0}, "second": {"v": 1.0}})
    one, other = (rater.rate(outputs_of([0, 1]), seed=0)["score"].tolist() for rater in (halo, aspects))
    assert one == [5, 7] and other == [4.5, 4.5]


@pytest.mark.parametrize(("noise", "known"), [(0.5, (0.31, 0.36, 0.49, 0.62)), (1.0, (0.36, 0.40, 0.49, 0.60))])
def test_ratings_against_rankings(features_of, noise, known):
    """METHODS III.2: two N(0, 1) aspects, one level a unit, a forced ranking without noise; 0, 30, 60 and 90° apart."""
    n = 12_000
    generator = np.random.Generator(np.random.Philox(1))
    table = {"u": generator.normal(size=2 * n), "v": generator.normal(size=2 * n)}
    features = features_of(gold={"u": 1.0}, **table)
    pairs = pd.DataFrame({
        "instruction": [f"x {i}" for i in range(n)], "output_1": [str(i) for i in range(n)],
        "output_2": [str(i) for i in range(n, 2 * n)],
    })  # fmt: skip
    ranked = LogitAnnotator(features, greedy=True).annotate(pairs, seed=0)
    for angle, share in zip((0, 30, 60, 90), known, strict=True):
        turned = {"u": float(np.cos(np.radians(angle))), "v": float(np.sin(np.radians(angle)))}
        rated = PersonRater(features, weights=turned, noise=noise).annotate(pairs, seed=0)
        assert inconsistency(rated, ranked) == pytest.approx(share, abs=0.02)


def test_without_noise_and_with_equal_weights_ties_alone_are_inconsistent(features_of, pairs_of):
    features = features_of(u=np.linspace(-3, 3, 50))
    generator = np.random.Generator(np.random.Philox(2))
    first, second = generator.integers(0, 50, (2, 3000))
    pairs = pairs_of(*(x[first != second] for x in (first, second)))
    rated = PersonRater(features, noise=0.0).annotate(pairs, seed=0)
    ranked = LogitAnnotator(features, greedy=True).annotate(pairs, seed=0)
    assert inconsistency(rated, ranked) == pytest.approx((rated["preference"] == 1.5).mean())


def test_reactions_and_what_is_not_said(features_of):
    """Likes with σ(u); observed more often where liked: the share of likes is biased, inverse propensity mends it."""
    n = 20_000
    reactor = PersonReactor(features_of(u=[0.4]), base=-1.0, by_like=2.0, by_strength=0.0)
    table = reactor.react(outputs_of([0] * n), seed=0)
    like = float(expit(0.4))
    seen = table[table["observed"]]
    shown = like * expit(1.0) / (like * expit(1.0) + (1 - like) * expit(-1.0))
    assert seen["liked"].astype(float).mean() == pytest.approx(shown, abs=0.015)
    weight = 1 / seen["propensity"]
    assert (seen["liked"].astype(float) * weight).sum() / weight.sum() == pytest.approx(like, abs=0.02)
    silent = table[~table["observed"]]
    assert silent["liked"].isna().all() and set(silent["status"]) == {"unobserved"}


def test_rankings_are_plackett_and_luce(features_of):
    utility = np.array([0.0, 0.7, 1.5])
    groups = pd.DataFrame({"instruction": [f"x {i}" for i in range(12_000)], "outputs": [["0", "1", "2"]] * 12_000})
    ranking = PersonRanker(features_of(u=utility)).rank(groups, seed=0)["ranking"]
    share = np.exp(utility) / np.exp(utility).sum()
    best = np.bincount([r[0] for r in ranking], minlength=3) / len(ranking)
    np.testing.assert_allclose(best, share, atol=0.015)
    ahead = np.mean([r.index(1) < r.index(0) for r in ranking])
    assert ahead == pytest.approx(expit(0.7), abs=0.015)  # the logistic choice between two
    exact = PersonRanker(features_of(u=utility), temperature=0.0).rank(groups[:1], seed=0)["ranking"].iloc[0]
    assert exact == [2, 1, 0]


def test_critiques_in_the_pocket_world_say_what_is_true():
    world = config.build(World, "pocket", Context())
    outputs = world.demonstrations(40)
    critic = PersonCritic(world.features, threshold=0.05)
    table = critic.critique(outputs, seed=0)
    seen = world.features(outputs["instruction"].tolist(), outputs["output"].tolist())
    strays = table["text"].str.contains("strays from the subject")
    assert strays.any() and (seen["strays"].to_numpy()[strays] > 0).all()
    utility = world.features.utility(outputs["instruction"].tolist(), outputs["output"].tolist())
    np.testing.assert_allclose(table["polarity"], np.tanh(utility / 4.0))
    # a mark is what the sentence adds
    i = 0
    text, asked = outputs["output"].iloc[i], outputs["instruction"].iloc[i]
    for mark in table["marks"].iloc[i]:
        rest = text[: mark["start"]] + text[mark["end"] :].lstrip(" ")
        assert mark["aspect"] in world.features.gold_weights
        assert mark["value"] == pytest.approx(utility[i] - world.features.utility([asked], [rest])[0], abs=1e-3)


def test_a_deceptive_critic_lies_as_often_as_it_says():
    world = config.build(World, "pocket", Context())
    outputs = pd.concat([world.demonstrations(150)] * 4, ignore_index=True)
    honest = PersonCritic(world.features, threshold=9.0).critique(outputs, seed=0)
    lies = [
        PersonCritic(world.features, threshold=9.0, intent="malicious", deception=0.4).critique(outputs, seed=s)
        for s in range(5)
    ]
    turned = [np.sign(t["polarity"]) != np.sign(honest["polarity"]) for t in lies]
    assert np.mean(turned) == pytest.approx(0.4, abs=0.04)
    harsh = PersonCritic(world.features, intent="hypercritical", deception=1.0).critique(outputs, seed=0)
    assert (harsh["polarity"] <= 0).all() and not harsh["text"].str.contains("opens well").any()
    with pytest.raises(ValueError, match="does not deceive"):
        PersonCritic(world.features, deception=0.5)


def test_feedback_depends_on_the_text_alone():
    outputs = pd.DataFrame({"instruction": ["a", "b", "c"], "output": ["One two.", "Three.", "- four\n- five"]})
    features = TextFeatures()
    for giver, verb, column in (
        (PersonRater(features), "rate", "score"), (PersonReactor(features), "react", "liked"),
        (PersonCritic(features), "critique", "text"),
    ):  # fmt: skip
        forward = getattr(giver, verb)(outputs, seed=3)[column].tolist()
        back = getattr(giver, verb)(outputs.iloc[::-1], seed=3)[column].tolist()
        assert forward == back[::-1]


def test_the_raters_of_the_document_rate_aspects_or_with_a_halo(annotate, tmp_path):
    document = (Path(__file__).parents[2] / "docs" / "annotators.md").read_text()
    (shown,) = re.findall(
        r"^```yaml\n(class: annotators\.feedback\.ratings.*?)^```", document, re.MULTILINE | re.DOTALL
    )
    overall = [line.removeprefix("# ") for line in shown.splitlines() if not line.startswith(("aspects:", "# or"))]
    texts = [{"instruction": "Name fruits.", "output": f"- figs\n- plums {k}"} for k in range(6)]
    (tmp_path / "outputs.json").write_text(json.dumps(texts))
    for name, said in {"aspects": shown, "overall": "\n".join(overall)}.items():
        (tmp_path / f"{name}.yaml").write_text(said)
        given = ["--kind", "ratings", "--annotators", tmp_path / f"{name}.yaml", "--out", tmp_path / f"{name}.json"]
        annotate(tmp_path / "outputs.json", *given)
    rated = pd.read_json(tmp_path / "aspects.json")
    assert (rated["score"] == rated[["content", "form"]].mean(axis=1)).all()
    assert pd.read_json(tmp_path / "overall.json")["score"].between(1, 7).all()


def test_the_command_gives_every_kind(annotate, tmp_path):
    rows = [{"instruction": f"Do {i}.", "output": f"Answer {i} {k}.", "generator": k} for i in range(6) for k in "ab"]
    (tmp_path / "outputs.json").write_text(json.dumps(rows))
    kinds = {"ratings": "rater", "reactions": "reactor", "rankings": "ranker", "critiques": "critic"}
    for kind, name in kinds.items():
        out = tmp_path / f"{kind}.json"
        command = [tmp_path / "outputs.json", "--kind", kind, "--annotators", name, "--out", out, "--json"]
        told = json.loads(annotate(*command))
        assert told["rows"] == len(json.loads(out.read_text())) == (6 if kind == "rankings" else 12)
    wrong = [tmp_path / "outputs.json", "--kind", "ratings", "--annotators", "evaluation", "--out", tmp_path / "x.json"]
    with pytest.raises(UserError, match="cannot play the role Rater: it lacks `rate`"):
        annotate(*wrong)
    with pytest.raises(UserError, match="--design is for pairs"):
        annotate(*wrong, "--design", "all")
    with pytest.raises(UserError, match="no feedback `rating`"):
        annotate(tmp_path / "outputs.json", "--kind", "rating", "--annotators", "rater", "--out", tmp_path / "x.json")
    with pytest.raises(UserError, match="`outputs` has lists, which CSV cannot hold"):
        annotate(tmp_path / "outputs.json", "--kind", "rankings", "--annotators", "ranker", "--out", tmp_path / "x.csv")
    (tmp_path / "lists.json").write_text(json.dumps([{"instruction": "Do.", "outputs": ["a", "b"]}]))
    with pytest.raises(UserError, match="`outputs` holds lists, and an output a row is read here"):
        annotate(tmp_path / "lists.json", "--kind", "rankings", "--annotators", "ranker", "--out", tmp_path / "x.json")
    judge = [tmp_path / "outputs.json", "--kind", "ratings", "--annotators", "llm_rater"]
    judge += ["--set", "model=mock/refuse", "--out", tmp_path / "llm.json", "--json"]
    with pytest.raises(UserError, match=r"not one answer \(12 refused\)"):
        annotate(*judge)
    assert {row["status"] for row in json.loads((tmp_path / "llm.json").read_text())} == {"refused"}
    assert json.loads(annotate(*judge, "--dry-run"))["questions"] == 12


def both(first: list[str], second: list[str]) -> pd.DataFrame:
    asked = [f"x {i % 2}" for i in range(len(first))]
    return pd.DataFrame({"instruction": asked, "output_1": first, "output_2": second})


@dataclass(frozen=True)
class Knows:
    """Checks, likes and ranks what it was told is right; says nothing of what is empty."""

    name: str = "knows"

    def _said(self, outputs, seed, replicate, **columns):
        return said_by(self.name, outputs, seed, replicate, **columns).assign(price=0.5)

    def check(self, outputs, *, seed, replicate=0):
        right = [None if not text else text.startswith("right") for text in outputs["output"]]
        return self._said(outputs, seed, replicate, right=pd.Series(right, outputs.index, dtype=object))

    def rank(self, groups, *, seed, replicate=0):
        ranking = [np.argsort([not text.startswith("right") for text in listed], kind="stable").tolist()
                   for listed in groups["outputs"]]  # fmt: skip
        return self._said(groups, seed, replicate, ranking=pd.Series(ranking, groups.index, dtype=object))


def test_a_judge_by_checks_or_rankings_prefers_what_they_imply():
    pairs = both(["right", "no", "right 1", "no", "", "no"], ["no", "right", "right 2", "no 2", "right", "no"])
    checked = ByKind(Knows(), "checks").annotate(pairs, seed=0)
    assert checked["preference"].tolist()[:4] == [1.0, 2.0, 1.5, 1.5] and checked["preference"].tolist()[5] == 1.5
    assert np.isnan(checked["preference"][4]) and checked["status"].tolist()[4] == "unobserved"
    assert checked["price"].tolist() == [1.0] * 6 and checked["annotator"].unique().tolist() == ["knows"]
    ranked = ByKind(Knows(), "rankings").annotate(pairs.iloc[:3], seed=0)
    assert ranked["preference"].tolist() == [1.0, 2.0, 1.0] and ranked["price"].tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="`kind` is ratings, and knows gives none"):
        ByKind(Knows(), "ratings")


def test_a_judge_by_ratings_is_the_rater_as_an_annotator_of_pairs(features_of):
    rater = PersonRater(features_of(u=[0.0, 1.0, 2.0]))
    pairs = both(["0", "1", "2", "1"], ["1", "0", "2", "2"])
    one, other = rater.annotate(pairs, seed=3), ByKind(rater).annotate(pairs, seed=3)
    assert one["preference"].tolist() == other["preference"].tolist()
    assert other[["score_1", "score_2"]].equals(one[["score_1", "score_2"]])
    assert is_free(ByKind(rater)) and gives(ByKind(rater)) == ["pairs"]


def test_a_set_is_worth_its_mean_and_how_unlike_its_outputs_are(features_of):
    """[num] of n alike 0, of n unlike ln n, of classes their entropy, of two at a distance that of (1 ± K) / 2."""
    features = features_of(u=[0.0, 1.0, 1.0, 3.0], style=[0.0, 0.0, 1.0, 2.0], gold={"u": 1.0})
    sets = [["0", "1"], ["0", "2", "3"], ["0", "0", "1", "2"], ["1", "2"]]
    groups = pd.DataFrame({"instruction": [f"x {i}" for i in range(4)], "outputs": sets})

    def value(**settings) -> np.ndarray:
        return SetAppraiser(features, **settings).appraise(groups, seed=1)["value"].to_numpy()

    classes = value(weights={}, by=["style"], width=0.0)
    three_of_four = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(value(weights={}, by=["style"], width=1e-200), classes)  # failed: no eigenvalues
    with pytest.raises(ValueError, match="diversity"):
        value(diversity=np.inf)
    np.testing.assert_allclose(classes, [0.0, np.log(3), three_of_four, np.log(2)], atol=1e-12)
    near = np.exp(-1 / (2 * 0.5**2))
    expected = -sum(p * np.log(p) for p in ((1 + near) / 2, (1 - near) / 2))
    assert value(weights={}, by=["style"], width=0.5)[3] == pytest.approx(expected)
    np.testing.assert_allclose(value(diversity=0.0), [0.5, 4 / 3, 0.5, 1.0])
    np.testing.assert_allclose(value(by=["style"], width=0.0, diversity=2.0), [0.5, 4 / 3, 0.5, 1.0] + 2 * classes)
    turned = groups.assign(outputs=[listed[::-1] for listed in sets])
    noisy = [SetAppraiser(features, noise=1.0).appraise(table, seed=1)["value"] for table in (groups, turned)]
    np.testing.assert_allclose(*noisy)  # the noise is of the set, whatever its order
    with pytest.raises(UserError, match="no feature `stile`; did you mean `style`"):
        value(by=["stile"])
