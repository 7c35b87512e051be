"""`farm calibrate`: planted crowds are found again, and simulated votes have the statistics of real people's."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import check_grad

from annotators.calibration import mixture, published, retest
from annotators.calibration.ballots import Ballots, ballots
from annotators.calibration.calibrate import calibrate, of_votes
from annotators.calibration.check import crowd_of, simulated, statistics
from annotators.calibration.summary import sentences
from annotators.people.crowd import Crowd, Group
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.votes.table import from_table, read_votes
from farm.worlds.matrix import MatrixWorld
from farm.worlds.text_features import TextFeatures
from tests import started


def blank(pairs: int, votes: int, people: int, seed: int = 0) -> Ballots:
    """Ballots of ``people`` who each vote on many pairs; what they say is filled in by a simulation."""
    generator = np.random.Generator(np.random.Philox(seed))
    who = np.stack([generator.permutation(people)[:votes] for _ in range(pairs)])
    table = pd.DataFrame({
        "id": np.repeat(np.arange(pairs), votes), "worker": who.ravel(), "winner": "left",
        "left": "a", "right": "b", "len_1": np.repeat(generator.integers(50, 900, pairs), votes),
        "len_2": np.repeat(generator.integers(50, 900, pairs), votes),
    })  # fmt: skip
    return ballots(from_table(table, "planted"))


def planted(groups: list[Group], given: Ballots, seed: int = 1, **further: float) -> pd.DataFrame:
    """Votes on ``given`` where every annotator is one person of one group (shares by the annotator's number)."""
    share = np.cumsum([g.share for g in groups]) / sum(g.share for g in groups)
    people = len(given.names)
    z = np.searchsorted(share, (np.arange(people) + 0.5) / people)
    out = given.table.copy()
    whole = [simulated(given, crowd_of(given, [g], **further), seed) for g in groups]
    member = z[given.annotator]
    for column in ("first", "shown"):
        out[column] = np.choose(member, [w[column].to_numpy() for w in whole])
    out["given"] = out["shown"]
    return out


def test_gradients():
    given = ballots(planted([Group(spread=1.5, tie_width=0.5)], blank(60, 4, 10)))
    free = mixture._free(given)
    theta = mixture._PRIOR_MEAN + np.random.Generator(np.random.Philox(2)).normal(0, 0.2, 7)
    at = theta[free]
    wrong = check_grad(
        lambda x: mixture._marginal(x, given, theta, free)[0], lambda x: mixture._marginal(x, given, theta, free)[1], at
    )
    assert wrong < 1e-3


def test_one_group_is_found_again():
    truth = Group(spread=2.0, position_bias=0.4, length_bias=1.0, tie_width=0.6, flip=0.05)
    found = mixture.fit(ballots(planted([truth], blank(2500, 5, 60))), 1).groups(True)[0]
    assert found.spread == pytest.approx(truth.spread, rel=0.12)
    assert found.position_bias == pytest.approx(truth.position_bias, abs=0.1)
    assert found.length_bias == pytest.approx(truth.length_bias, abs=0.15)
    assert found.tie_width == pytest.approx(truth.tie_width, abs=0.08)
    assert found.flip == pytest.approx(truth.flip, abs=0.025)


def test_groups_are_found_again():
    """People with a clear view, and a third who hardly look and sit on the fence: two by BIC, and who is in which."""
    truth = [Group(share=0.67, spread=3.0, tie_width=0.3), Group(share=0.33, spread=0.5, tie_width=1.5)]
    given = ballots(planted(truth, blank(900, 5, 30)))
    found = mixture.best(given, 2)
    groups = found.groups(True)
    assert len(groups) == 2
    assert [g.share for g in groups] == pytest.approx([0.67, 0.33], abs=0.05)
    assert [g.tie_width for g in groups] == pytest.approx([0.3, 1.5], abs=0.25)
    assert groups[0].spread == pytest.approx(3.0, rel=0.25) and groups[1].spread == pytest.approx(0.5, abs=0.25)
    large = found.belongs[:, np.argmax(found.share)] > 0.5
    assert np.mean(large == (np.arange(30) < 20)) > 0.95


def test_one_group_stays_one():
    given = ballots(planted([Group(spread=1.5, tie_width=0.5)], blank(500, 4, 20)))
    assert len(mixture.best(given, 2).groups(True)) == 1


def test_lasting_opinions_show_when_people_are_asked_twice():
    groups = [Group(spread=1.5)]
    between, own = retest.agreements(groups, 1.0, 0.0)
    assert own == pytest.approx(between)
    assert retest.opinions(groups, own) == (1.0, 0.0)
    scale, opinion = retest.opinions(groups, own + 0.1)
    kept, told = retest.agreements(groups, scale, opinion)
    assert opinion > 0.5 and kept == pytest.approx(between, abs=2e-3) and told == pytest.approx(own + 0.1, abs=2e-3)
    # and the annotators do the same
    crowd = Crowd(TextFeatures(), [Group(spread=1.5 * scale)], size=4, opinion_spread=opinion)
    pairs = pd.DataFrame({"instruction": [str(i) for i in range(4000)], "output_1": "a", "output_2": "b"})
    one, two = crowd.people[0], crowd.people[1]
    first, second, other = (
        p.annotate(pairs, seed=0, replicate=r)["preference"].to_numpy() for p, r in ((one, 0), (one, 1), (two, 0))
    )
    assert (first == second).mean() == pytest.approx(told, abs=0.025)
    assert (first == other).mean() == pytest.approx(between, abs=0.025)


@pytest.mark.parametrize(
    ("name", "file", "pairs"),
    [
        ("PandaLM", "human/pandalm/testset-v1.json", None),
        ("UKP", "human/ukp_convarg_crowd/ukp_crowd.csv.gz", 900),
    ],
)
def test_the_crowd_votes_as_people_did(shared_data, name, file, pairs):
    """Agreement, ceiling, variance, ties, preferences within the 95 % intervals of the human data, with one group."""
    votes = read_votes(shared_data(file))
    if pairs:
        votes = votes[votes["item"].isin(sorted(votes["item"].unique())[::14][:pairs])]
    found = of_votes(votes, name, groups=1)
    check = found.check.set_index("statistic")
    asked = check.drop(index="pairs with one opinion")
    assert len(asked) >= 6 and asked["inside"].all(), check.to_string()
    said = sentences(found)
    assert "people beside the crowd" in said and json.loads(found.to_json())["groups"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["llmfao/crowd-comparisons.csv", "ukp_convarg_crowd/ukp_crowd.csv.gz"])
def test_the_whole_data_with_groups(shared_data, file):
    found = calibrate(shared_data("human") / file)
    asked = found.check.set_index("statistic").drop(index="pairs with one opinion")
    assert asked["inside"].all(), asked.to_string()
    if "ukp" in file:
        flip, difficulty = found.noise.fits[:2]
        assert flip.chi_square == pytest.approx(346.5, abs=0.1)
        assert difficulty.chi_square == pytest.approx(5.26, abs=0.01)
        said = sentences(found)
        assert "chi2 346.5, 1 df" in said and "rejected" in said


def test_llmfao_with_one_group(shared_data):
    found = of_votes(read_votes(shared_data("human/llmfao/crowd-comparisons.csv")), "LLMFAO", groups=1)
    asked = found.check.set_index("statistic").drop(index="pairs with one opinion")
    assert asked["inside"].all(), asked.to_string()


def test_alpacaevals_people(shared_data):
    """The published row: 65.66 agreement, 34.34 variance, .636 longer, .604 lists, .518 first, over 648 pairs."""
    base = shared_data("alpaca_eval/human")
    found = calibrate(base / "evaluators_leaderboard.csv", pairs=base / "crossannotation_pairs_648.parquet")
    check = found.check.set_index("statistic")
    assert check["inside"].all() and found.pairs == 648 and found.flip == pytest.approx(0.262, abs=5e-4)
    assert check.loc["agreement (AlpacaEval)", "people"] == pytest.approx(0.6566, abs=1e-4)
    assert (check["high"] - check["low"]).max() < 0.35
    alone = calibrate(base / "evaluators_leaderboard.csv")
    assert alone.groups[0].spread < found.groups[0].spread + 0.5 and alone.groups[0].length_bias > 0
    with pytest.raises(UserError, match="no row `humen`"):
        published.read_row(base / "evaluators_leaderboard.csv", "humen")


def test_the_pool_is_accepted_and_learnable_where_the_truth_is_known(tmp_path):
    given = blank(80, 4, 8)
    planted([Group(spread=1.5)], given)[["id", "worker", "left", "right", "len_1", "len_2"]].assign(
        winner=np.random.Generator(np.random.Philox(3)).choice(["left", "right", "tie"], 320)
    ).to_csv(tmp_path / "votes.csv", index=False)
    told = started.run("calibrate", tmp_path / "votes.csv", "--out", tmp_path / "crowd.yaml", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["votes"] == 320
    pairs = [{"instruction": f"Do {i}.", "output_1": "One.", "output_2": f"Two {i}."} for i in range(30)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    words = ["annotate", tmp_path / "pairs.json", "--annotators", tmp_path / "crowd.yaml"]
    assert started.run(*words, "--out", tmp_path / "out.json").returncode == 0
    assert len(json.loads((tmp_path / "out.json").read_text())) == 30
    world = MatrixWorld(utilities=[0.0, 3.0], responses=["bad", "good"])
    known = config.build(Annotator, str(tmp_path / "crowd.yaml"), Context(world=world, features=world.features))
    assert isinstance(known, Crowd) and known.people[0].weights and known.people[0].latent_spread == 0


def test_a_crowd_knows_the_truth_of_a_world_and_has_latent_margins_elsewhere(pairs_of, features_of):
    groups = [Group(spread=2.0, flip=0.02)]
    world = MatrixWorld(utilities=[0.0, 1.0], responses=["0", "1"])
    pairs = pairs_of(np.zeros(4000, int), np.ones(4000, int))
    knows = Crowd(world.features, groups, world=world).annotate(pairs, seed=0)
    p = 0.98 / (1 + np.exp(-2.0)) + 0.02 / (1 + np.exp(2.0))
    assert (knows["preference"] == 2).mean() == pytest.approx(p, abs=0.02)
    anywhere = Crowd(features_of(u=[0.0, 1.0]), groups).annotate(pairs, seed=0)
    assert (anywhere["preference"] == 2).mean() == pytest.approx(0.5, abs=0.03)
    again = Crowd(features_of(u=[0.0, 1.0]), groups).annotate(pairs, seed=9)
    same = (anywhere["preference"] == again["preference"]).mean()
    expected = retest.agreements(groups, 1.0, 0.0)[0]
    assert same == pytest.approx(expected, abs=0.02)  # another seed, the same pairs: easy ones stay easy


def test_a_calibration_finds_lasting_opinions_in_repeated_votes():
    """Three people vote twice on each of 250 pairs, each with opinions of their own; one person alone tells nothing."""
    flat = crowd_of(blank(250, 2, 6), [Group(spread=1.5)], opinion_spread=3.0)
    people = flat.people[:3]
    pairs = pd.DataFrame({"instruction": [f"0 {i}" for i in range(250)], "output_1": "first", "output_2": "second"})
    rows = [
        pd.DataFrame({"id": range(250), "worker": p.name, "left": "a", "right": "b",
                      "winner": np.where(p.annotate(pairs, seed=0, replicate=r)["preference"] == 1, "left", "right")})
        for p in people for r in (0, 1)
    ]  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    found = of_votes(from_table(table, "twice"), "twice", groups=1)
    assert found.test_retest.n == 750 and found.opinion_spread > 1.5
    assert "people agree with themselves" in sentences(found) and "opinion_spread: 0.0" not in found.yaml()
    alone = of_votes(from_table(table[table["worker"] == people[0].name], "one"), "one", groups=1)
    assert alone.opinion_spread == 0


def test_mistakes_are_told(tmp_path):
    path = tmp_path / "votes.csv"
    pd.DataFrame({"id": [1, 2], "worker": [1, 2], "winner": ["left", "right"]}).to_csv(path, index=False)
    with pytest.raises(UserError, match="no pair has two votes"):
        calibrate(path)
    with pytest.raises(UserError, match="no such file"):
        calibrate(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="too small"):
        Crowd(TextFeatures(), [Group(), Group()], size=1)


def test_simulated_votes_are_those_of_the_crowd_asked_replicate_by_replicate():
    given = blank(12, 5, 8)
    crowd = crowd_of(given, [Group(spread=1.5, tie_width=0.4, position_bias=0.3)], tie_spread=0.2, opinion_spread=0.7)
    found = simulated(given, crowd, 3)
    turned = given.table["reversed"].to_numpy(bool)
    for replicate in range(5):
        rows = np.flatnonzero(given.table.groupby("ballot").cumcount() == replicate)
        pairs = pd.DataFrame({
            "instruction": [f"3 {k}" for k in given.item[rows]],
            "output_1": np.where(turned[rows], "second", "first"),
            "output_2": np.where(turned[rows], "first", "second"),
        })  # fmt: skip
        said = crowd.annotate(pairs, seed=3, replicate=replicate)
        assert (found["shown"].to_numpy()[rows] == 2 - said["preference"].to_numpy()).all()
        assert (found["annotator"].to_numpy()[rows] == said["annotator"].to_numpy()).all()


def test_all_votes_on_one_pair():
    """It took minutes before; a pair with more votes than groups are fitted on was left out, and no vote remained."""
    assert len(blank(1, 8, 8).part(5).item) == 8
    votes = np.random.Generator(np.random.Philox(4)).choice(["left", "right"], 1000, p=[0.8, 0.2])
    rows = pd.DataFrame({"id": "a", "worker": np.arange(1000) % 40, "left": "x", "right": "y", "winner": votes})
    found = of_votes(from_table(rows, "one pair"), "one pair", groups=1)
    share = float((votes == "left").mean())
    check = found.check.set_index("statistic")
    assert check.loc["agreement of two votes", "people"] == pytest.approx(share**2 + (1 - share) ** 2, abs=2e-3)
    assert check.loc["variance (AlpacaEval)", "people"] == pytest.approx(1 - share)
    said = sentences(found)
    assert "1,000 votes on 1 pair by" in said and "[too few]" in said and "nan" not in said and "outside" not in said


def test_statistics_of_known_votes():
    """Votes 1 1 1 0 on one pair and 1 1/2 on another: 3 of 6 pairs agree, and the half of one."""
    rows = pd.DataFrame({
        "id": ["a"] * 4 + ["b"] * 2, "worker": range(6), "left": "x", "right": "y",
        "winner": ["left", "left", "left", "right", "left", "tie"],
    })  # fmt: skip
    found = statistics(ballots(from_table(rows, "t")).table)
    assert found["agreement of two votes"].value == pytest.approx(3.5 / 7)
    assert found["ties"].value == pytest.approx(1 / 6)
    assert found["pairs with one opinion"].value == 0
