"""Every kind of feedback through the one way to ask: the command, order, chunks, the store, budgets and noise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import farm.feedback
from annotators.feedback.checks import AnswerChecker
from annotators.feedback.corrections import PersonEditor
from annotators.feedback.ratings import PersonRater
from annotators.feedback.reactions import PersonReactor
from annotators.feedback.triplets import PersonMatcher
from annotators.noise.both_orders import BothOrders
from annotators.noise.expertise import Expertise
from annotators.noise.flip import Flip
from annotators.people.logit import LogitAnnotator
from farm.asking.ask import ask, parts
from farm.asking.limits import Limits
from farm.asking.purse import limited
from farm.base.errors import UserError
from farm.feedback import kind as kind_module
from farm.feedback.kind import FeedbackKind, as_shown, counts, kind, kinds
from farm.feedback.units import address_of_singles, of_singles
from farm.roles import config
from farm.roles.protocols import Context
from farm.storage.store import Store
from farm.tables import feedback_sets, formats
from farm.worlds.text_features import TextFeatures

GIVERS = {
    "pairs": "training", "rankings": "ranker", "ratings": "rater", "reactions": "reactor", "critiques": "critic",
    "corrections": "editor", "checks": "checker", "triplets": "matcher", "sets": "appraiser",
}  # fmt: skip
ROWS = {"pairs": 6, "rankings": 6, "triplets": 6, "sets": 6}
N = 20_000


def outputs(instructions: int = 6) -> pd.DataFrame:
    words = "apples pears plums figs nuts. grapes and also. a lot of cherries! quinces melons".split()
    rows = [
        {"instruction": f"Name fruit {i}.", "output": " ".join(words[(i + k) % 5 : 6 + (i * k) % 6]) + ".",
         "generator": "abc"[k], "answer": "nuts" if i % 2 else None}
        for i in range(instructions) for k in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def built(name: str) -> Any:
    role = next(k.giver for k in kinds().values() if GIVERS[k.name] == name)
    return config.build(role, name, Context(features=TextFeatures()))


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        *(t.drop(columns=["cached", "seconds"], errors="ignore") for t in (one, other)), check_dtype=False
    )


@pytest.mark.parametrize("name", GIVERS)
def test_the_command_finds_the_kind_and_gives_it(name: str, annotate: Any, tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text(outputs().to_json(orient="records"))
    command = [tmp_path / "outputs.json", "--annotators", GIVERS[name], "--out", tmp_path / "out.json", "--json"]
    command += ["--kind", "ratings"] if name == "ratings" else []  # a rater is an annotator of pairs, too
    said = json.loads(annotate(*command))
    table = pd.read_json(tmp_path / "out.json")
    assert len(table) == ROWS.get(name, 18) == sum(said["status"].values())
    assert {kind(name).answer, "annotator", "user", "status", "price"} <= set(table.columns)
    assert "cached" not in table
    written = (tmp_path / "out.json").read_bytes()
    for store in (["--store", tmp_path / "store.sqlite"], ["--store", tmp_path / "store.sqlite"], ["--kind", name]):
        annotate(*command, *store)
        assert (tmp_path / "out.json").read_bytes() == written
    annotate(*[tmp_path / "out.parquet" if word == tmp_path / "out.json" else word for word in command])
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == len(table)


@pytest.mark.parametrize("name", GIVERS)
def test_neither_order_nor_chunks_nor_a_resume_change_an_answer(name: str, tmp_path: Path) -> None:
    feedback, giver = kind(name), built(GIVERS[name])
    rows = feedback.build(outputs(40), seed=2)
    whole = ask(feedback, giver, rows, seed=3, replicate=1)
    mixed = rows.sample(frac=1, random_state=1)
    same(ask(feedback, giver, mixed, seed=3, replicate=1).sort_index(), whole)
    same(pd.concat(parts(feedback, giver, rows, seed=3, replicates=(1,), chunk=7)), whole)
    store = Store(tmp_path / "store.sqlite")
    ask(feedback, giver, rows.iloc[5:20], seed=3, replicate=1, store=store)
    for _ in range(2):
        same(ask(feedback, giver, rows, seed=3, replicate=1, store=store)[list(whole.columns)], whole)
    each = np.arange(len(rows)) % 3
    several = ask(feedback, giver, rows, seed=3, replicate=each)
    assert several["replicate"].tolist() == each.tolist()
    same(several[each == 1], whole[each == 1])
    assert ask(feedback, giver, rows.iloc[:0], seed=3, replicate=each[:0]).empty
    same(ask(feedback, giver, rows, seed=3, replicate=np.int64(1)), whole)  # type: ignore[arg-type]
    again = ask(feedback, giver, whole, seed=3, replicate=1)  # what an earlier answer left is no part of the question
    same(again[list(whole.columns)], whole)


@pytest.mark.parametrize("name", GIVERS)
def test_the_turns_before_the_last_are_part_of_what_is_asked_about(name: str) -> None:
    feedback, giver = kind(name), built(GIVERS[name])
    plain = outputs()
    talked = plain.assign(turns=[["Say more.", "And then?"]] * len(plain))
    rows, longer = feedback.build(plain, seed=2), feedback.build(talked, seed=2)
    assert list(longer["turns"].iloc[0]) == ["Say more.", "And then?"] and len(rows) == len(longer)
    for ids in (feedback.unit, feedback.address):
        assert not set(ids(rows)) & set(ids(longer))
    answered = ask(feedback, giver, longer, seed=3)
    assert answered[feedback.answer].notna().any() and answered["turns"].tolist() == longer["turns"].tolist()


@dataclass(frozen=True)
class Paid:
    """Answers every kind of feedback for a cent, and knows nothing of limits."""

    name: str = "paid"
    asked: list[int] = field(default_factory=list)

    def description(self) -> object:
        return "paid"

    def __getattr__(self, verb: str) -> Any:
        answers = {k.verb: k.answer for k in kinds().values()}
        if verb not in answers:
            raise AttributeError(verb)

        def given(rows: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
            self.asked.append(len(rows))
            value = [[0, 1, 2]] * len(rows) if verb == "rank" else 1.0
            free = dict.fromkeys(("input_tokens", "output_tokens", "seconds"), 0)
            said = {answers[verb]: value, "annotator": "paid", "status": "ok", "price": 0.01}
            return rows.assign(**said, **free, seed=seed, replicate=replicate)

        return given


@pytest.mark.parametrize("name", GIVERS)
def test_nothing_is_paid_twice_and_a_budget_counts_all(name: str, tmp_path: Path) -> None:
    giver = Paid()
    rows, store = kind(name).build(outputs(), seed=1), Store(tmp_path / "store.sqlite")
    for done, budget in ((4, None), (len(rows), 5.0), (len(rows), 5.0)):
        with limited(Limits(budget=budget)) as purse:
            ask(kind(name), giver, rows.iloc[:done], seed=0, store=store)
        assert purse.spent == pytest.approx(0.01 * done)
    assert sum(giver.asked) == len(rows), "a rehearsal asks nobody who does not keep to limits"
    assert store.totals()["price"].sum() == pytest.approx(0.01 * len(rows))


def test_a_wrapper_says_which_kinds_it_wraps() -> None:
    features = TextFeatures()
    rows = outputs()
    with pytest.raises(UserError, match=r"Flip wraps checks, pairs, reactions, triplets, not ratings"):
        ask(kind("ratings"), Flip(PersonRater(features)), rows, seed=0)
    with pytest.raises(ValueError, match=r"it wraps pairs, reactions, checks, triplets, and editor gives corrections"):
        Flip(PersonEditor(features))
    with pytest.raises(UserError, match=r"reactor: PersonReactor gives reactions, not pairs"):
        ask(kind("pairs"), Flip(PersonReactor(features)), kind("pairs").build(rows), seed=0)
    with pytest.raises(UserError, match=r"BothOrders wraps pairs, not reactions"):
        ask(kind("reactions"), BothOrders(LogitAnnotator(features)), rows, seed=0)


def test_a_yaml_wraps_whoever_gives_the_kind(annotate: Any, tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text(outputs().to_json(orient="records"))
    (tmp_path / "noisy.yaml").write_text("class: annotators.noise.flip.Flip\nrate: 0.5\nannotator: checker\n")
    command = [tmp_path / "outputs.json", "--annotators", tmp_path / "noisy.yaml", "--out", tmp_path / "out.json"]
    said = json.loads(annotate(*command, "--json"))
    assert said["kind"] == "checks" and said["status"] == {"ok": 9, "unobserved": 9}
    with pytest.raises(UserError, match="Flip` cannot play the role Critic: it lacks `critique`"):
        annotate(*command, "--kind", "critiques")
    (tmp_path / "both.yaml").write_text("class: annotators.noise.flip.Flip\nannotator: rater\nrate: 0.1\n")
    annotate(*command[:2], tmp_path / "both.yaml", *command[3:])  # a rater is an annotator of pairs, too
    assert "preference" in json.loads((tmp_path / "out.json").read_text())[0]


def test_flips_of_every_kind_happen_as_often_as_they_say_and_are_marked(features_of) -> None:
    rows = pd.DataFrame({"instruction": [f"x {i}" for i in range(N)], "output": "1", "answer": "1"})
    checker = AnswerChecker(features_of(u=[0.0, 1.0]))
    table = Flip(checker, 0.3).check(rows, seed=1)
    assert table["flipped"].mean() == pytest.approx(0.3, abs=0.015)
    assert (table["right"] == ~table["flipped"]).all()
    twice = Flip(Flip(checker, 0.3), 1.0).check(rows, seed=1)
    assert (twice["right"] != table["right"]).all() and (twice["flipped"] == ~table["flipped"]).all()
    reactor = PersonReactor(features_of(u=[0.0, 9.0]), base=0.0)
    plain, noisy = reactor.react(rows, seed=1), Flip(reactor, 0.3).react(rows, seed=1)
    assert (noisy["observed"] == plain["observed"]).all()
    turned = noisy["liked"][noisy["observed"]] != plain["liked"][noisy["observed"]]
    assert (turned == noisy["flipped"][noisy["observed"]]).all() and turned.mean() == pytest.approx(0.3, abs=0.02)
    assert not noisy["flipped"][~noisy["observed"]].any() and noisy["liked"][~noisy["observed"]].isna().all()
    triplets = rows.assign(anchor="1", output_1="0", output_2="1")
    matched = Flip(PersonMatcher(features_of(u=[0.0, 1.0]), temperature=0.0), 0.3).match(triplets, seed=1)
    assert (matched["nearer"] == np.where(matched["flipped"], 1.0, 2.0)).all()


def test_an_editor_strikes_out_what_costs_and_gains_what_it_says() -> None:
    world = config.build(config.World, "pocket", Context())
    written = world.demonstrations(60)
    table = PersonEditor(world.features, edits=3).correct(written, seed=0)
    asked = written["instruction"].tolist()
    gain = world.features.utility(asked, table["correction"].tolist()) - world.features.utility(
        asked, written["output"].tolist()
    )
    np.testing.assert_allclose(table["gain"], gain, atol=1e-9)
    changed = table["correction"] != table["output"]
    assert 0.2 < changed.mean() < 1 and (table["gain"][changed] > 0).all() and (table["edits"] > 0).eq(changed).all()
    assert (table["edits"] <= 3).all() and table["correction"].str.len().min() > 0
    idle = PersonEditor(world.features, lapse=1.0).correct(written, seed=0)
    assert (idle["correction"] == idle["output"]).all()


def test_checks_by_answer_number_and_feature() -> None:
    features = TextFeatures()
    rows = pd.DataFrame({"instruction": "q", "output": ["It is  PARIS.", "Parisian", "So 1,234.50", "I say 3 or 4"],
                         "answer": ["Paris", "Paris", "1234.5", "3"]})  # fmt: skip
    assert AnswerChecker(features).check(rows, seed=0)["right"].tolist() == [True, False, False, True]
    by_number = AnswerChecker(features, way="number").check(rows, seed=0)["right"].tolist()
    assert by_number == [False, False, True, False]
    assert AnswerChecker(features, way="equals").check(rows.assign(answer=rows["output"]), seed=0)["right"].all()
    long = AnswerChecker(features, feature="length", at_least=3).check(rows, seed=0)["right"].tolist()
    assert long == [True, False, True, True]
    with pytest.raises(UserError, match="no column `answr` to check by; did you mean `answer`"):
        AnswerChecker(features, answer="answr").check(rows, seed=0)
    many = pd.DataFrame({"instruction": [f"x {i}" for i in range(N)], "output": "a", "answer": ["a", "b"] * (N // 2)})
    errs = AnswerChecker(features, passes_wrong=0.2, fails_right=0.1).check(many, seed=0)
    right = errs["right"].astype(float).to_numpy()
    assert right[::2].mean() == pytest.approx(0.9, abs=0.015) and right[1::2].mean() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("noisy", [False, True])
def test_an_answer_is_not_found_again_where_a_column_that_it_depends_on_has_changed(
    noisy: bool, tmp_path: Path
) -> None:
    store, features = Store(tmp_path / "store.sqlite"), TextFeatures()
    checker: Any = AnswerChecker(features, answer="solution")
    if noisy:
        checker = Expertise(AnswerChecker(features), rates={"a": 0.0, "b": 1.0}, column="solution")
    rows = pd.DataFrame({"instruction": "q", "output": ["a"], "answer": "a"})
    for solution, right in (("a", True), ("b", False), ("a", True)):
        table = ask(kind("checks"), checker, rows.assign(solution=solution), seed=0, store=store)
        assert table["right"].tolist() == [right]


def test_the_nearer_text_is_named_as_often_as_its_distance_says(features_of) -> None:
    matcher = PersonMatcher(features_of(u=[0.0, 1.0, 3.0]), temperature=1.0)
    triplets = pd.DataFrame(
        {"instruction": [f"x {i}" for i in range(N)], "anchor": "0", "output_1": "2", "output_2": "1"}
    )
    table = matcher.match(triplets, seed=1)
    share = 1 / (1 + np.exp(2.0))  # three away, and one
    np.testing.assert_allclose(table["p_first"], share)
    assert (table["nearer"] == 1).mean() == pytest.approx(share, abs=0.01)
    turned = matcher.match(triplets.rename(columns={"output_1": "output_2", "output_2": "output_1"}), seed=1)
    np.testing.assert_array_equal(turned["nearer"], 3 - table["nearer"])
    assert (matcher.match(triplets.assign(output_1="1"), seed=1)["nearer"] == 1.5).all()


NEW_KIND = """
from typing import Protocol
import pandas as pd
from farm.feedback.designs import singles
from farm.feedback import kind as kind_module
from farm.feedback.kind import FeedbackKind, as_shown, counts
from farm.feedback.units import address_of_singles, of_singles

class Counter(Protocol):
    def count(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame: ...

KIND = FeedbackKind(
    name="words", verb="count", giver=Counter, columns={"words": "how many"}, designs=("singles",),
    rows=lambda responses, design, seed: singles(responses), orient=as_shown, unit=of_singles,
    address=address_of_singles, summary=lambda table: {"rows": len(table), **counts(table), "cost": 0.0},
)
"""
NEW_GIVER = """
class Counts:
    def count(self, outputs, *, seed, replicate=0):
        free = dict.fromkeys(("input_tokens", "output_tokens", "price", "seconds"), 0.0)
        words = outputs["output"].str.split().str.len()
        return outputs.assign(words=words, annotator="counts", status="ok", seed=seed, replicate=replicate, **free)
"""


def test_a_new_kind_is_two_files(annotate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One beside the others in farm/feedback, and one of somebody who gives it; the command finds both."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "words_kind_for_test.py").write_text(NEW_KIND)
    (tmp_path / "counts_for_test.py").write_text(NEW_GIVER)
    (tmp_path / "counts.yaml").write_text("class: counts_for_test.Counts\n")
    (tmp_path / "outputs.json").write_text(outputs().to_json(orient="records"))
    monkeypatch.setattr(farm.feedback, "__path__", [*farm.feedback.__path__, str(tmp_path / "room")])
    kind_module._kinds.cache_clear()
    try:
        for further in (
            [],
            ["--kind", "words"],
            ["--store", tmp_path / "s.sqlite"],
            ["--store", tmp_path / "s.sqlite"],
        ):
            command = [
                tmp_path / "outputs.json",
                "--annotators",
                tmp_path / "counts.yaml",
                "--out",
                tmp_path / "o.json",
            ]
            said = json.loads(annotate(*command, *further, "--json"))
            assert said["kind"] == "words" and said["status"] == {"ok": 18}
            rows = json.loads((tmp_path / "o.json").read_text())
            assert all(row["words"] == len(row["output"].split()) for row in rows)
    finally:
        kind_module._kinds.cache_clear()


def test_a_kind_of_ones_own_is_asked_like_any_other() -> None:
    """A kind is one object: nothing else knows it."""

    @dataclass(frozen=True)
    class Counts:
        def count(self, rows: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
            free = dict.fromkeys(("input_tokens", "output_tokens", "price", "seconds"), 0.0)
            said = {"words": rows["output"].str.split().str.len(), "annotator": "counts", "status": "ok"}
            return rows.assign(**said, **free, seed=seed, replicate=replicate)

    words = FeedbackKind(
        name="words", verb="count", giver=Counts, columns={"words": "how many"}, designs=("singles",),
        rows=lambda responses, design, seed: responses, orient=as_shown, unit=of_singles, address=address_of_singles,
        summary=counts,
    )  # fmt: skip
    assert ask(words, Counts(), words.build(outputs()), seed=0)["words"].sum() > 0
    with pytest.raises(UserError, match="PersonRater gives pairs, ratings, not words"):
        ask(words, PersonRater(TextFeatures()), outputs(), seed=0)


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
@pytest.mark.parametrize("name", GIVERS)
def test_what_is_written_of_a_kind_is_read_again(name: str, suffix: str, tmp_path: Path) -> None:
    table = ask(kind(name), built(GIVERS[name]), kind(name).build(outputs(), seed=2), seed=3)
    formats.write_annotations(table, tmp_path / f"out{suffix}")
    found = feedback_sets.read(tmp_path / f"out{suffix}", kind=name).table
    for column in {*kind(name).columns, "status", "annotator"} & set(table.columns):
        one, two = (t[column].astype(object).where(t[column].notna(), None).tolist() for t in (table, found))
        assert [_plain(v) for v in one] == [_plain(v) for v in two], column


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, np.ndarray)) else value
