"""Responses, feedback of several kinds, given data and fitted models: what an experiment says, and what is made."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.asking.limits import Limits
from farm.asking.purse import limited
from farm.base.errors import Alarm, UserError
from farm.experiments import experiment, run_tables
from farm.experiments.asker import FeedbackAsker
from farm.experiments.running import Run, StudyRunner
from farm.experiments.stages.accuracy import summary
from farm.feedback.kind import kind
from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.roles.protocols import Learning, Samples
from farm.tables.records import annotation_table
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from tests.farm.table_world import EXPERIMENT, write

NEEDING = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Needing:
    """Says what it was given, and learns nothing."""
    kinds: list[str]
    asking: tuple[str, ...] = ()

    @property
    def needs(self):
        return frozenset(self.kinds)

    @property
    def asks(self):
        return frozenset(self.asking)

    def train(self, learning):
        line = {f"rows of {kind}": len(table) for kind, table in learning.feedback.items()}
        for kind in self.asking:
            shown = learning.feedback["pairs"][["instruction", "output_1", "output_2"]]
            line[f"asked {kind}"] = len(learning.ask(kind, shown))
        responses = 0 if learning.responses is None else len(learning.responses)
        learning.log({"step": 0, "responses": responses, "models": len(learning.models), **line})
        return learning.policy
'''
ODD: list[Any] = [{"meta": {}, "note": 1, "price": 3.0}, {"meta": {}, "note": "x", "price": 3.0}]
"""columns of a file that no table of a stage can hold, and one that says what it cost somebody else"""
PAIRS = [
    {"prompt": f"question {i}", "chosen": "good " * k + "good", "rejected": "bad", **ODD[k]}
    for i in range(20)
    for k in range(2)
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    (tmp_path / "needing_for_test.py").write_text(NEEDING)
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return write(tmp_path, methods={"dpo": EXPERIMENT["methods"]["dpo"]}, reporter=None)


def needing(*kinds: str, **more: Any) -> dict[str, Any]:
    return {"class": "needing_for_test.Needing", "kinds": list(kinds), **more}


def runner(*settings: str) -> StudyRunner:
    return StudyRunner(experiment.load("table.yaml", settings), Path("run"))


def go(*settings: str) -> Run:
    return runner(*settings).go()


def stages(*settings: str) -> set[str]:
    return {node.name for node in runner(*settings).graph().values()}


GIVEN = "feedback={pairs: {from: prefs.jsonl}}"


def test_given_pairs_train_a_reward_model_and_a_policy_and_nobody_is_asked(here: Path) -> None:
    write(here, annotator={"class": "annotators.llm.annotator.LLMAnnotator", "model": "mock/mumble"})
    assert stages(GIVEN) & {"responses", "pairs", "reward model"} == {"pairs", "reward model"}
    run = go(GIVEN, "reward_model.epochs=40", "methods.dpo.epochs=40", "methods.dpo.learning_rate=0.3")
    assert not run.failures
    board = run.leaderboard.set_index("method")
    assert board.loc["dpo", "gold"] > board.loc["sft", "gold"] + 0.1  # the preferred outputs are the better ones
    assert board.loc["best_of_n", "gold"] > board.loc["sft", "gold"] + 0.1
    given = pd.read_parquet(here / "run" / "tables" / "preferences.parquet")
    assert len(given) == len(PAIRS) and set(given["annotator"]) == {"prefs"}
    assert given["price"].sum() == 0 and "response_tokens_1" not in given.columns


KINDS: dict[str, dict[str, Any]] = {
    "pairs": {"output_1": "good", "output_2": "bad", "preference": 1},
    "ratings": {"output": "good", "score": 3},
    "rankings": {"outputs": ["bad", "good", ""], "ranking": [1, 2, 0]},
    "reactions": {"output": "good", "liked": True},
    "critiques": {"output": "good", "text": "yes", "polarity": 1, "marks": [{"start": 0, "end": 4, "value": 1.0}]},
    "corrections": {"output": "bad", "correction": "good"},
    "checks": {"output": "good", "right": True},
    "triplets": {"anchor": "good", "output_1": "bad", "output_2": "good good", "nearer": 2},
    "sets": {"outputs": ["bad", "good", ""], "value": 0.5},
}


def test_every_kind_may_be_given_and_columns_may_have_names_that_a_run_has(here: Path) -> None:
    """A text called `labels` beside the pairs was kept, and the run's own reader then refused the file."""
    names = {"labels": "x", "turn": "first", "method": None, "step": 3}
    for name, answer in KINDS.items():
        rows = [{"instruction": f"question {i}", **answer, **names} for i in range(4)]
        (here / f"{name}.json").write_text(json.dumps(rows))
    write(here, methods={"odd": needing(*KINDS)}, feedback={name: {"from": f"{name}.json"} for name in KINDS})
    go()
    line = json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[0])
    for name, answer in KINDS.items():
        assert line[f"rows of {name}"] == 4
        table = pd.read_parquet(here / "run" / "tables" / f"{'preferences' if name == 'pairs' else name}.parquet")
        assert all(run_tables.can_hold(column, table[column]) for column in table)
        assert {*answer, "step"} <= set(table.columns) and not {"labels", "turn", "method"} & set(table.columns)


def test_a_file_that_changes_is_other_data(here: Path) -> None:
    before = runner(GIVEN).graph()
    (here / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS[1:]))
    names = {node.name: key for key, node in runner(GIVEN).graph().items()}
    changed = {name for name, key in names.items() if key not in before}
    assert {"pairs", "dpo", "dpo answers"} <= changed and "sft answers" not in changed


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, r"prefs\.jsonl: row 41: `chosen` is neither a text"),
        ({"prompt": "q", "chosen": "a"}, r"prefs\.jsonl: row 41: `rejected` is neither a text"),
    ],
)
def test_a_wrong_row_is_refused_before_anything_is_made(here: Path, row: dict[str, Any], said: str) -> None:
    with (here / "prefs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=said):
        go(GIVEN)
    assert not (here / "home" / "artifacts").exists()


def test_ratings_become_pairs_and_columns_may_have_other_names(here: Path) -> None:
    rows = [{"q": f"question {i}", "a": "good " * k + "good", "stars": k} for i in range(20) for k in range(3)]
    (here / "stars.json").write_text(json.dumps(rows))
    go("feedback={pairs: {from: stars.json, map: {instruction: q, output: a, score: stars}}}")
    pairs = pd.read_parquet(here / "run" / "tables" / "preferences.parquet")
    assert len(pairs) == 60 and set(pairs["preference"]) == {2.0}  # of k and k + 1 stars the second is better


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["methods.odd={N, kinds: [rewrd_model]}"], "the method odd needs `rewrd_model`.*did you mean `reward_model`"),
        (["methods.odd={N, kinds: [ratngs]}"], "needs `ratngs`, which is not there; did you mean `ratings`"),
        (["methods.odd={N, kinds: [preferences]}"], "needs `preferences`, which is called pairs now"),
        (["methods.odd={N, kinds: [ratings]}"], "needs `ratings`, and `feedback` does not say who gives them"),
        (["methods.odd={N, kinds: [user]}"], "needs `user`, and the experiment has no `user`"),
        (["methods.odd={N, kinds: [demonstrations]}"], "needs `demonstrations`, and this world has none"),
        (["methods.odd={N, kinds: [], asking: [pears]}"], "asks for `pears`, which is no kind.*did you mean `pairs`"),
        (["methods.odd={N, kinds: [pairs], asking: [pairs]}", GIVEN], "they are given from prefs.jsonl: nobody can"),
        (["methods.odd={use: best_of_n, reward_model: rankr}", "models={ranker: reward_model}"], "mean `ranker`"),
        (["feedback={pears: person}"], "feedback: there is no kind `pears`; did you mean `pairs`"),
        (["feedback={pairs: {annotatr: person}}"], "annotatr"),
        (["feedback={pairs: {design: adjacnt}}"], "there is no design `adjacnt`; did you mean `adjacent`"),
        (["feedback={pairs: {design: best-worst}}"], "go together"),
        (["feedback={pairs: {by: ratings}, ratings: rater}"], "go together"),
        (["feedback={pairs: {design: ranked, by: ratngs}, ratings: rater}"], "of `ratngs`; did you mean `ratings`"),
        (["feedback={pairs: {design: ranked, by: reward_model}}"], "`by` needs `reward_model`, which needs this model"),
        (
            ["feedback={pairs: {class: annotators.noise.flip.Flip, annotator: matcher}}"],
            "yaml: feedback.pairs: .* not pairs",
        ),
        (["judges.judge={class: annotators.noise.flip.Flip, annotator: matcher}"], "yaml: judges.judge: .* not pairs"),
        (["responses={writers: [dpo]}"], "writers"),
        (["responses={from: prefs.jsonl, per_prompt: 3}"], "prefs.jsonl, and none are written: leave `responses.per_p"),
        (
            ["methods.odd={N, kinds: [triplets]}", "feedback={triplets: matcher}"],
            "feedback.triplets: 3 responses to an instruction are put together, and there are at most 2: set "
            "`responses.per_prompt` to 3 or more",
        ),
        (["responses={per_prompt: 1}"], "feedback.pairs: 2 responses .* at most 1: set `responses.per_prompt` to 2"),
        (["models={dpo: reward_model}"], "`dpo` cannot be a name under `models`"),
        (["models={a: {class: needing_for_test.Needing, kinds: [a]}}", "methods.odd={N, kinds: [a]}"], "in turn"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(here: Path, settings: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        go(*(setting.replace("{N,", "{class: needing_for_test.Needing,") for setting in settings))
    assert not (here / "home" / "artifacts").exists()


def test_feedback_that_nothing_learns_from_is_said(here: Path) -> None:
    """It was left out without a word."""
    write(here, methods={"odd": needing("pairs", asking=["checks"])}, feedback={"checks": "checker"})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        go("feedback.ratings=rater", "methods.odd.asking=[]")
    alarms = [str(one.message) for one in said if issubclass(one.category, Alarm)]
    assert [alarm.partition(": no ")[0] for alarm in alarms] == [
        "table.yaml: feedback.checks", "table.yaml: feedback.ratings",
    ]  # fmt: skip


def test_a_judge_may_give_feedback_of_another_kind(here: Path) -> None:
    spec = {"kind": "ratings", "annotator": {"use": "rater", "noise": 0}}
    write(here, methods={"best_of_n": EXPERIMENT["methods"]["best_of_n"]}, judges={"judge": spec, "gold": "gold"})
    run = go()
    judged = pd.read_parquet(here / "run" / "tables" / "judge_judge.parquet")
    gold = pd.read_parquet(here / "run" / "tables" / "judge_gold.parquet")
    decided = judged["preference"] != 1.5  # a scale of seven levels has more ties
    assert set(judged["annotator"]) == {"rater"} and decided.any()
    assert (judged["preference"] == gold["preference"])[decided].all() and not run.failures
    with pytest.raises(UserError, match="unknown key `annotatr` of ByKind; did you mean `annotator`"):
        go("judges.judge={kind: ratings, annotatr: rater}")
    with pytest.raises(UserError, match="`kind` is checks, and rater gives none"):
        go("judges.judge={kind: checks, annotator: rater}")


def test_as_many_responses_as_a_kind_needs_are_enough(here: Path) -> None:
    write(here, methods={"odd": needing("triplets")}, feedback={"triplets": "matcher"}, responses={"per_prompt": 3})
    assert "triplets" in stages()
    write(here, methods={"odd": needing("ratings")}, feedback={"ratings": "rater"}, responses={"per_prompt": 1})
    assert "ratings" in stages()


def test_all_kinds_are_asked_about_the_same_responses(here: Path) -> None:
    both = needing("pairs", "ratings", "responses")
    write(here, methods={"odd": both}, feedback={"ratings": "rater"}, responses={"prompts": 15, "per_prompt": 4})
    assert {"responses", "pairs", "ratings"} <= stages() and "reward model" not in stages()
    go()
    tables = here / "run" / "tables"
    pairs, ratings = pd.read_parquet(tables / "preferences.parquet"), pd.read_parquet(tables / "ratings.parquet")
    assert (len(pairs), len(ratings)) == (30, 60)
    rated = set(zip(ratings["instruction"], ratings["output"], strict=True))
    assert {*zip(pairs["instruction"], pairs["output_1"], strict=True)} <= rated
    assert all(sorted(draws) == [0, 1, 2, 3] for _, draws in ratings.groupby("instruction")["draw"])
    line = json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line == {
        "method": "odd",
        "step": 0,
        "responses": 60,
        "models": 0,
        "rows of pairs": 30,
        "rows of ratings": 60,
    }


def test_pairs_by_the_scores_of_ratings(here: Path) -> None:
    asked = {"pairs": {"design": "best-worst", "by": "ratings"}, "ratings": {"annotator": {"use": "rater", "noise": 0}}}
    write(here, methods={"odd": needing("pairs")}, feedback=asked, responses={"prompts": 20, "per_prompt": 4})
    go()
    pairs = pd.read_parquet(here / "run" / "tables" / "preferences.parquet")
    assert len(pairs) <= 20 and pairs["instruction"].is_unique
    ratings = pd.read_parquet(next((here / "home" / "artifacts").glob("ratings-*")) / "ratings.parquet")
    spread = ratings.groupby("instruction")["score"].agg(lambda s: s.max() - s.min())
    found = (pairs["score_1"] - pairs["score_2"]).abs().to_numpy()
    np.testing.assert_allclose(found, spread.loc[pairs["instruction"]].to_numpy())


def test_models_are_fitted_once_and_picked_by_name(here: Path) -> None:
    scored = {f"best_{n}": {"use": "best_of_n", "n": n, "reward_model": "second"} for n in (2, 4)}
    models = {"second": {"use": "reward_model", "learning_rate": 0.2}, "unused": "reward_model"}
    write(here, methods=scored, models=models, accuracy=True)
    found = [node.name for node in runner().graph().values()]
    assert found.count("second") == 1 and not {"reward model", "unused"} & set(found)
    run = go("sizes.pairs=2000")
    measured = pd.read_parquet(here / "run" / "tables" / "accuracy.parquet")
    assert set(measured["model"]) == {"second"} and set(measured["of"]) == {"judge", "gold", "gold utility"}
    shares = run.table("accuracy").set_index("of")["accuracy"]
    assert shares["gold"] == shares["gold utility"] > 0.5  # the gold annotator says what the truth is
    assert run.leaderboard["proxy"].notna().all()


def test_accuracy_counts_an_undecided_model_half_and_an_undecided_judge_not_at_all() -> None:
    rows = pd.DataFrame({"model": "m", "of": "j", "instruction": ["a", "b", "c"], "agrees": [1.0, 0.5, np.nan]})
    assert summary(rows)[["accuracy", "n", "undecided"]].iloc[0].tolist() == [0.75, 2, 1]


def test_unlabelled_prompts_come_from_behind_the_labelled_ones(here: Path) -> None:
    plan = runner("responses={prompts: 7}", "sizes.pairs=3").plans[0]
    assert plan.setting.sources.labelled_prompts == 7
    assert runner(GIVEN).plans[0].setting.sources.labelled_prompts == 0


# --- what a method is given -------------------------------------------------------------------------------------------


class Drawing:
    """Prefers by a keyed coin, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        self.asked.append((len(pairs), replicate))
        coin = np.random.default_rng([seed, replicate]).random(len(pairs))
        return annotation_table(pairs, "coin", np.where(coin < 0.5, 1.0, 2.0), coin, seed=seed, price=0.5)


def policy() -> TabularPolicy:
    return TabularPolicy(["q"], ["a", "b"], np.zeros((1, 2)))


def test_what_is_asked_again_is_a_new_draw_and_the_tally_goes_with_the_checkpoint() -> None:
    giver = Drawing()
    learning = Learning(1, policy(), pd.DataFrame({"instruction": ["q"]}))
    asked = replace(learning, asked={"pairs": FeedbackAsker(kind("pairs"), giver, 1)})
    pairs = pd.DataFrame({"instruction": ["q"] * 2, "output_1": ["a"] * 2, "output_2": ["b"] * 2})
    asked.ask("pairs", pairs)
    assert giver.asked == [(1, 0), (1, 1)]
    asked.ask("pairs", pairs[:1], purpose="look")
    assert giver.asked[2:] == [(1, 0)]  # another purpose counts for itself
    state = asked.asked["pairs"].state_dict()
    again = FeedbackAsker(kind("pairs"), giver, 1)
    with limited(Limits(budget=2.0)) as purse:
        for _ in range(2):  # a training inside another one has the same askers
            again.load_state_dict(state)
    assert purse.spent == 1.5  # which is not asked again, and did not count
    assert (again.queries("learning"), again.queries("look"), again.price) == (2, 1, 1.5)
    again.ask(pairs[:1], "learning")
    assert giver.asked[3:] == [(1, 2)]
    with pytest.raises(UserError, match="asks for ratings and nobody is there"):
        asked.ask("ratings", pairs)


def test_the_reference_need_not_be_where_learning_starts() -> None:
    """Of one pair DPO's optimum depends on the reference alone: log pi(a)/pi(b) moves by r / beta from it."""
    pairs = pd.DataFrame({"instruction": "q", "output_1": ["a", "b"] * 2, "output_2": ["b", "a"] * 2})
    pairs["preference"] = [1.25, 1.75] * 2
    start = TabularPolicy(["q"], ["a", "b"], np.array([[2.0, 0.0]]))
    method = DPO(beta=1.0, learning_rate=0.1, epochs=200, batch_size=4, schedule="constant", warm_up=0.0)
    given = Learning(1, start, pd.DataFrame({"instruction": ["q"]}), feedback={"pairs": pairs})
    for reference, expected in ((None, 2 + np.log(3)), (policy(), np.log(3))):
        learned: Any = method.train(replace(given, other_reference=reference))
        first, second = learned.probabilities()[0].detach().double().numpy()
        assert np.log(first / second) == pytest.approx(expected, abs=0.02)


class CountsLetters:
    """A reward model that has nothing to train."""

    def scores(self, samples: Samples) -> torch.Tensor:
        return torch.tensor([float(len(output)) for output in samples.outputs])

    def parameters(self) -> Any:
        return iter(())


def test_a_scorer_without_parameters_is_no_critic() -> None:
    """A value model then starts from the policy, and is not a copy of what only counts."""
    given = Learning(1, policy(), pd.DataFrame({"instruction": ["q"]}), models={"reward_model": CountsLetters()})  # type: ignore[dict-item]
    critic = PPO(steps=1, rollouts=4).start_critic(given)
    assert isinstance(critic, TabularScorer) and next(iter(critic.parameters()), None) is not None
    assert isinstance(PPO(steps=1, rollouts=4).train(given), TabularPolicy)
