"""Sets of feedback in others' formats: round trips, what follows from what, and refusals that name row and field."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import farm
from farm.base.errors import Alarm, UserError
from farm.tables import arena_hard, feedback_sets, formats
from farm.tables.set_formats import FORMATS, NESTED
from tests.hub_double import Hub

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
VERDICTS = st.sampled_from([1.0, 2.0, 1.5, np.nan])
PAIRS = st.lists(
    st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, VERDICTS), min_size=1, max_size=5, unique_by=lambda row: row[:3]
).map(
    lambda rows: pd.DataFrame(
        [(*row[:3], row[3], "base", "judge", row[4]) for row in rows],
        columns=["instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference"],
    )
)
SCORES = st.one_of(st.floats(-1e6, 1e6), st.integers(1, 5).map(float))
RATINGS = st.lists(
    st.tuples(TEXTS, TEXTS, TEXTS, SCORES, *[SCORES] * 4), min_size=1, max_size=5, unique_by=lambda row: row[:2]
).map(
    lambda rows: pd.DataFrame(
        rows,
        columns=["instruction", "output", "generator", "score"]
        + [f"aspect_{a}" for a in ("correctness", "coherence", "complexity", "verbosity")],
    ).sort_values("instruction", kind="stable", ignore_index=True)
)
REACTIONS = st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=5).map(
    lambda rows: pd.DataFrame(rows, columns=["instruction", "output", "liked"])
)
SETS: dict[str, st.SearchStrategy[pd.DataFrame]] = {"pairs": PAIRS, "ratings": RATINGS, "reactions": REACTIONS}
SETS["outputs"] = PAIRS.map(
    lambda t: t.rename(columns={"output_1": "output", "generator_1": "generator"})[
        ["instruction", "output", "generator"]
    ]
)
LISTS = st.lists(st.tuples(TEXTS, st.permutations(["a", "b", "c"]), st.permutations(range(3))), min_size=1, max_size=4)
SETS["rankings"] = LISTS.map(lambda rows: pd.DataFrame(rows, columns=["instruction", "outputs", "ranking"]))


def answered(answer: st.SearchStrategy[Any], *columns: str) -> st.SearchStrategy[pd.DataFrame]:
    """Rows of texts, and an answer on each."""
    rows = st.lists(st.tuples(*[TEXTS] * (len(columns) - 1), answer), min_size=1, max_size=4)
    return rows.map(lambda found: pd.DataFrame(found, columns=[*columns]))


SETS["critiques"] = answered(st.floats(-1, 1), "instruction", "output", "text", "polarity")
SETS["corrections"] = answered(TEXTS, "instruction", "output", "correction")
SETS["checks"] = answered(st.booleans(), "instruction", "output", "right")
NEARER = st.sampled_from([1.0, 1.5, 2.0])
SETS["triplets"] = answered(NEARER, "instruction", "anchor", "output_1", "output_2", "nearer")
SETS["sets"] = st.lists(st.tuples(TEXTS, st.permutations(["a", "b", "c"]), SCORES), min_size=1, max_size=4).map(
    lambda rows: pd.DataFrame(rows, columns=["instruction", "outputs", "value"])
)
WITHOUT_TIES = ("preferences", "conversational", "hh")
LOST = {
    **{name: {"generator_1", "generator_2", "annotator"} for name in WITHOUT_TIES},
    **{name: {"generator"} for name in ("helpsteer", "completions", "messages")},
}
"""what a format has no place for"""


def there_and_back(table: pd.DataFrame, name: str, suffix: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table as read from one format, and after it was written in another and read again."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first.parquet", Path(folder) / f"second{suffix}"
        kind = FORMATS[name].kind
        plain = {"pairs": "annotations", "reactions": "labels"}.get(kind, kind)
        if plain == "labels":
            table = table.rename(columns={"instruction": "prompt", "output": "completion", "liked": "label"})
        formats.write_table(table, first)
        feedback_sets.convert(first, second, to=name)
        one, two = feedback_sets.read(first), feedback_sets.read(second)
        assert (one.kind, two.kind) == (kind, kind) and (one.format, two.format) == (plain, name)
        return one.table, two.table


@settings(max_examples=6)
@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.write])
@given(data=st.data())
def test_every_format_gives_back_what_it_was_given(name: str, data: st.DataObject) -> None:
    suffixes = [".json"] if name == "annotated_pairs" else [".json", ".jsonl", ".parquet"]
    table = data.draw(SETS[FORMATS[name].kind])
    if name in WITHOUT_TIES:
        table = table[table["preference"].isin([1.0, 2.0])]
        if name == "hh":  # white space at a turn's ends is not part of it
            plain = [table[c].map(lambda text: text == text.strip()) for c in ("instruction", "output_1", "output_2")]
            table = table[np.logical_and.reduce(plain)]
        if table.empty:
            return
    one, two = there_and_back(table, name, data.draw(st.sampled_from(suffixes)))
    if name in WITHOUT_TIES:  # the chosen output stands first
        swap = (one["preference"] == 2).to_numpy()
        one = one.assign(
            output_1=np.where(swap, one["output_2"], one["output_1"]),
            output_2=np.where(swap, one["output_1"], one["output_2"]),
            preference=1.0,
        )
    columns = [c for c in table.columns if c not in LOST.get(name, ())]
    columns = [{"prompt": "instruction", "completion": "output", "label": "liked"}.get(c, c) for c in columns]
    assert len(one) == len(two)
    for column in columns:
        assert one[column].astype(object).where(one[column].notna(), None).tolist() == (
            two[column].astype(object).where(two[column].notna(), None).tolist()
        ), column


@settings(max_examples=10)
@given(RATINGS)
def test_ratings_are_compared_within_an_instruction(table: pd.DataFrame) -> None:
    found = feedback_sets.of_table(table, "ratings")
    pairs = feedback_sets.as_kind(found, "pairs") if table["instruction"].duplicated().any() else pd.DataFrame()
    sizes = table.groupby("instruction").size()
    assert len(pairs) == int((sizes * (sizes - 1) // 2).sum())
    scores = {(r.instruction, r.output): r.score for r in table.itertuples()}
    for row in pairs.itertuples():
        one, two = scores[row.instruction, row.output_1], scores[row.instruction, row.output_2]
        assert row.preference == (1.5 if one == two else 1.0 if one > two else 2.0)


def test_pairs_say_who_is_liked_and_ties_say_nothing() -> None:
    rows = [("q", "a", "b", 1.0), ("q", "c", "d", 1.5), ("r", "e", "f", 1.8)]
    table = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2", "preference"])
    liked = farm.convert(table, "labels")
    assert list(liked.itertuples(index=False, name=None)) == [
        ("q", "a", True),
        ("q", "b", False),
        ("r", "e", False),
        ("r", "f", True),
    ]


def test_whole_conversations_without_a_prompt() -> None:
    def said(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]

    found = feedback_sets.of_table(pd.DataFrame({"chosen": [said("hello")], "rejected": [said("go away")]}), "c")
    assert found.format == "conversational"
    assert found.table.loc[0, ["instruction", "output_1", "output_2"]].tolist() == ["hi", "hello", "go away"]


def test_the_command_says_what_a_format_cannot_hold(tmp_path: Path) -> None:
    rows = [("q", "a", "b", v) for v in (1.0, 1.7, 1.5, None)]
    table = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2", "preference"])
    formats.write_table(table, tmp_path / "in.json")
    said = feedback_sets.convert(tmp_path / "in.json", tmp_path / "out.jsonl", "preferences")
    assert said == (
        "annotations of 4 rows to preferences of 2; 1 soft preferences became verdicts; "
        "2 ties and missing verdicts were left out"
    )
    assert feedback_sets.convert(tmp_path / "in.json", tmp_path / "liked.jsonl", "labels") == (
        "annotations of 4 rows to labels of 4; 1 soft preferences became verdicts; "
        "2 ties and missing verdicts were left out"
    )
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[1] == {"prompt": "q", "chosen": "b", "rejected": "a"}


GOOD: dict[str, dict[str, Any]] = {
    "preferences": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "annotations": {"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1},
    "labels": {"prompt": "q", "completion": "a", "label": True},
    "battles": {"model_a": "a", "model_b": "b", "winner": "tie"},
    "ratings": {"instruction": "q", "output": "a", "score": 3},
    "ultrafeedback": {"instruction": "q", "completions": [{"model": "m", "response": "a", "overall_score": 7.5}]},
    "hh": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    "sheets": {"model_a": "m", "model_b": "n", "prompt": "q", "completion_a": "a", "completion_b": "b",
               "preference": "a-is-better"},
    "arena_hard": {"question_id": "q", "model": "m", "judge": "j", "games": [{"score": "A>>B"}, {"score": "B=A"}]},
    "rankings": {"instruction": "q", "outputs": ["a", "b"], "ranking": [1, 0]},
    "critiques": {"instruction": "q", "output": "abc", "text": "good", "polarity": 1, "marks": []},
    "corrections": {"instruction": "q", "output": "a", "correction": "b"},
    "checks": {"instruction": "q", "output": "a", "right": True},
    "triplets": {"instruction": "q", "anchor": "a", "output_1": "b", "output_2": "c", "nearer": 1},
    "sets": {"instruction": "q", "outputs": ["a", "b"], "value": 0.5},
    "reactions": {"instruction": "q", "output": "a", "liked": True, "observed": True},
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("preferences", "chosen", 3, "row 2: `chosen` is neither a text nor a list of role/content turns"),
        ("preferences", "prompt", None, "row 2: `prompt` is neither a text"),
        ("annotations", "output_2", None, "row 2: `output_2` is missing"),
        ("annotations", "preference", 3, r"row 2: `preference` = 3 is outside \[1, 2\]"),
        ("labels", "label", "yes", "row 2: `label` is 'yes', not true or false"),
        ("battles", "winner", "me", "row 2: `winner` is 'me', not model_a, model_b or tie"),
        ("ratings", "score", "high", "row 2: `score` is not a number: 'high'"),
        ("ultrafeedback", "completions", "a", "row 2: `completions` is no list of objects with a `response`"),
        ("hh", "rejected", "b", "row 2: `rejected` is no dialogue that begins with `Human:`"),
        ("sheets", "preference", "a bit", "row 2: `preference` is 'a bit', not a word such as a-is-better"),
        ("sheets", "preference", 1, "row 2: `preference` is 1, not a word; map it"),
        ("arena_hard", "games", [{"score": "A"}] * 2, "row 2: `score` is 'A', not A>>B, A>B"),
        ("arena_hard", "games", [{"score": ["A>B"]}] * 2, r"row 2: `score` is \['A>B'\], not A>>B, A>B"),
        ("arena_hard", "games", [{"score": "A"}], r"row 2: `games` is \[.*, not a list of two objects"),
        ("rankings", "ranking", [0, 0], r"row 2: `ranking` is \[0, 0\], and should hold each of 0 to 1 once"),
        ("rankings", "outputs", "a", "row 2: `outputs` is 'a', not a list of two or more texts"),
        ("critiques", "polarity", 2, "row 2: `polarity` is 2, not from -1 to 1"),
        ("critiques", "marks", [{"start": 1, "end": 9, "value": 1}], "`marks`: 1 to 9 is no place in an output of 3"),
        (
            "critiques",
            "marks",
            [{"start": 0.5, "end": 2, "value": 1}],
            "row 2: `marks` holds .* whose start and end are not whole",
        ),
        ("corrections", "correction", 3, "row 2: `correction` is not a text: 3"),
        ("checks", "right", "yes", "row 2: `right` is 'yes', not true or false"),
        ("triplets", "nearer", 3, "row 2: `nearer` is 3, not one of"),
        ("sets", "value", "much", "row 2: `value` is not a number: 'much'"),
        ("sets", "outputs", ["a"], r"row 2: `outputs` is \['a'\], not a list of two or more texts"),
        ("reactions", "liked", "yes", "row 2: `liked` is 'yes', not true or false"),
        ("messages", "messages", [{"role": "user", "content": "q"}], "row 2: `messages` has an answer and no question"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, name: str, field: str, value: object, said: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps([GOOD[name]]))
    assert feedback_sets.read(path).format == name
    path.write_text(json.dumps([GOOD[name], {**GOOD[name], field: value}]))
    with pytest.raises(UserError, match=rf"set\.json: (row 2: )?{said}"):
        feedback_sets.read(path)


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "q", "better": "a", "worse": "b"}\n')
    with pytest.raises(UserError, match=r"mine\.jsonl: of no known format; for .* the field `.*` is missing"):
        feedback_sets.read(path)
    names = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    assert feedback_sets.read(path, names).table.loc[0, "output_2"] == "b"
    with pytest.raises(UserError, match="no column `questoin` to take for `prompt`; did you mean `question`"):
        feedback_sets.read(path, {**names, "prompt": "questoin"})


@pytest.mark.parametrize(
    ("name", "out", "to", "said"),
    [
        ("labels", "o.json", "preferences", "holds reactions, from which no pairs follow"),
        ("preferences", "o.json", "preferencs", "there is no format `preferencs`; did you mean `preferences`"),
        ("preferences", "o.csv", "conversational", "which CSV cannot hold"),
        ("preferences", "o.jsonl", "annotated_pairs", r"annotated pairs are a \.json file"),
        ("battles", "o.json", "preferences", "preferences carry the texts, and the field `instruction` is missing"),
        ("preferences", "i.json", "labels", "is read"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, name: str, out: str, to: str, said: str) -> None:
    (tmp_path / "i.json").write_text(json.dumps([GOOD[name]]))
    with pytest.raises(UserError, match=said):
        feedback_sets.convert(tmp_path / "i.json", tmp_path / out, to)
    assert [p.name for p in tmp_path.iterdir()] == ["i.json"]
    assert set(NESTED) < set(FORMATS)


def test_a_map_for_annotated_pairs_is_refused(tmp_path: Path) -> None:
    """It was left aside, a misspelt column too."""
    (tmp_path / "i.json").write_text("{}")  # one object, as annotated pairs are
    with pytest.raises(UserError, match="leave out the map"):
        feedback_sets.read(tmp_path / "i.json", ["prompt=questoin"])


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with Hub() as hub:
        hub.add("dataset", "owner/prefs", {"train.jsonl": json.dumps(GOOD["preferences"]).encode() + b"\n"})
        hub.use(monkeypatch, tmp_path)
        found = feedback_sets.read("owner/prefs")
    assert (found.format, found.table.loc[0, "output_1"]) == ("preferences", "a")


def test_published_annotations_become_preferences(shared_data: Any, tmp_path: Path) -> None:
    """Of a real judge: rows with the texts, soft preferences, some of them missing."""
    source = shared_data("alpaca_eval/results/NullModel/weighted_alpaca_eval_gpt4_turbo/annotations.json")
    feedback_sets.convert(source, tmp_path / "prefs.jsonl", "preferences")
    made, judged = formats.read_table(tmp_path / "prefs.jsonl"), formats.read_annotations(source)
    decided = judged[judged["preference"].notna() & (judged["preference"] != 1.5)]
    assert len(made) == len(decided)
    better = np.where(decided["preference"] < 1.5, decided["output_1"], decided["output_2"])
    assert made["chosen"].tolist() == better.tolist()


def test_two_ratings_of_one_text_are_no_pair_and_an_annotator_need_not_be_named() -> None:
    rows = [("a", 1.0, "x"), ("a", 3.0, "x"), ("b", 2.0, None), ("c", 5.0, None)]
    table = pd.DataFrame(rows, columns=["output", "score", "annotator"]).assign(instruction="q")
    pairs = feedback_sets.as_kind(feedback_sets.of_table(table, "rated.json"), "pairs")
    assert pairs[["output_1", "output_2", "preference"]].to_numpy().tolist() == [["b", "c", 2.0]]


@pytest.mark.parametrize("to", ["annotations", "labels", "outputs"])
def test_conversations_do_not_go_into_a_csv(tmp_path: Path, to: str) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    rows = [{"chosen": turns, "rejected": [*turns[:3], {"role": "assistant", "content": "e"}]}]
    (tmp_path / "i.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="several turns, which CSV cannot hold"):
        feedback_sets.convert(tmp_path / "i.json", tmp_path / "o.csv", to)
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("o.csv", "instruction,turns,output\nq,\"['b', 'c']\",x\n", "row 1: `turns` is not a list of texts"),
        ("r.csv", "instruction,turns,output,score\nq,\"['b', 'c']\",x,1\n", "row 1: `turns` is not a list of texts"),
        ("l.csv", "prompt,completion,label\nq,a,1\nq,b,\n", "row 2: `label` is"),
    ],
)
def test_cells_of_a_csv_that_say_nothing(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        feedback_sets.read(tmp_path / name)


def test_aspects_that_are_no_object_are_left_out() -> None:
    rows = [{"instruction": "q", "completions": [{"response": "a", "overall_score": 3, "annotations": ["x"]}]}]
    found = feedback_sets.of_table(pd.DataFrame(rows), "set.json").table
    assert found["score"].tolist() == [3.0] and not [c for c in found.columns if c.startswith("aspect_")]


def test_dialogues_of_hh_as_texts() -> None:
    """Two turns of one speaker are one, and rows whose dialogues differ before the answer are left out aloud."""
    start = "\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
    rows = [(f"{start} e", f"{start} f"), (f"{start} e", "\n\nHuman: a\n\nAssistant: f")]
    with pytest.warns(Alarm, match="1 of 2 rows were left out: their two dialogues differ"):
        found = feedback_sets.of_table(pd.DataFrame(rows, columns=["chosen", "rejected"]), "hh").table
    assert found[["instruction", "turns", "output_1", "output_2"]].to_numpy().tolist() == [
        ["a\n\nb", ["c", "d"], "e", "f"]
    ]


@pytest.mark.parametrize("field", ["instruction", "output_1", "output_2"])
def test_a_text_that_hh_would_read_as_several_turns_is_refused(field: str) -> None:
    row = {"instruction": "q", "output_1": "Human: a", "output_2": "b\nHuman: c", "preference": 1.0}
    found = feedback_sets.of_table(pd.DataFrame([row, {**row, field: "yes\n\nHuman: no"}]), "pairs.json")
    with pytest.raises(UserError, match=f"row 2: `{field}` has a line `Human:`, which hh would read") as caught:
        feedback_sets.converted(found, "hh")
    assert len(str(caught.value)) < 300
    plain = feedback_sets.of_table(pd.DataFrame([row]), "pairs.json")
    back = feedback_sets.of_table(feedback_sets.converted(plain, "hh")[0], "hh")
    assert back.table[list(row)].to_dict("records") == [row]


def test_hh_as_it_is_published(shared_data: Any, tmp_path: Path) -> None:
    source = shared_data("human/hh_rlhf/harmless-base_test.jsonl.gz")
    said = feedback_sets.convert(source, tmp_path / "c.jsonl", "conversational")
    assert (
        said == "hh of 2,312 rows to conversational of 2,312"
    )  # 13 of its texts have two turns of one speaker in a row
    first = json.loads((tmp_path / "c.jsonl").open().readline())
    assert [turn["role"] for turn in first["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    assert first["prompt"][2]["content"] == "yep" and first["chosen"][0]["content"].startswith("No, sorry!  All of")


def test_a_system_turn_is_the_beginning_of_the_first() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    rows = [{"prompt": turns, "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}]
    assert feedback_sets.of_table(pd.DataFrame(rows), "s").table.loc[0, "instruction"] == "Be brief.\n\nhi"
    with pytest.raises(UserError, match="row 1: `prompt`: there is no turn behind the system's"):
        feedback_sets.of_table(pd.DataFrame([{**rows[0], "prompt": turns[:1]}]), "s")


@pytest.mark.parametrize(
    ("name", "between"),
    [("messages", "outputs"), ("completions", "outputs"), ("conversational", "annotations"), ("labels", "reactions")],
)
def test_a_system_turn_is_one_again_where_a_conversation_is_written(tmp_path: Path, name: str, between: str) -> None:
    said = [{"role": r, "content": c} for r, c in (("system", "Be brief."), ("user", "hi"), ("assistant", "a"))]
    alone = [{"role": "user", "content": "Be brief.\n\nhi"}, {"role": "assistant", "content": "c"}]
    other = [{"role": "assistant", "content": "b"}]
    rows: list[dict[str, Any]] = {
        "messages": [{"messages": said}, {"messages": alone}],
        "completions": [{"prompt": m[:-1], "completion": m[-1:]} for m in (said, alone)],
        "conversational": [{"prompt": m[:-1], "chosen": m[-1:], "rejected": other} for m in (said, alone)],
        "labels": [{"prompt": m[:-1], "completion": m[-1:], "label": True} for m in (said, alone)],
    }[name]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    feedback_sets.convert(tmp_path / "in.jsonl", tmp_path / "between.jsonl", between)
    assert {json.loads(line)["instruction"] for line in (tmp_path / "between.jsonl").open()} == {"Be brief.\n\nhi"}
    feedback_sets.convert(tmp_path / "between.jsonl", tmp_path / "out.jsonl", name)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").open()] == rows
    if name == "conversational":  # and in what follows from pairs
        feedback_sets.convert(tmp_path / "between.jsonl", tmp_path / "messages.jsonl", "messages")
        assert json.loads((tmp_path / "messages.jsonl").open().readline())["messages"] == said


def test_a_system_turn_does_not_go_into_a_csv(tmp_path: Path) -> None:
    """Its cells were lists as Python writes them."""
    said = [{"role": r, "content": c} for r, c in (("system", "Be brief."), ("user", "hi"), ("assistant", "a"))]
    (tmp_path / "in.json").write_text(json.dumps([{"messages": said}]))
    with pytest.raises(UserError, match="system turns, which completions in CSV cannot hold"):
        feedback_sets.convert(tmp_path / "in.json", tmp_path / "o.csv", "completions")
    assert not (tmp_path / "o.csv").exists()


def test_a_column_of_that_name_that_is_no_system_turn_leaves_prompts_as_texts() -> None:
    """They became conversations of one turn."""
    rows = pd.DataFrame([{"instruction": "q", "output": "a", "generator": "m", "system": "v1"}])
    made, _ = feedback_sets.converted(feedback_sets.of_table(rows, "s"), "completions")
    assert isinstance(made, pd.DataFrame)
    assert made.to_dict("records") == [{"prompt": "q", "completion": "a"}]


WORDS = {"a-is-better": (1, 1), "A-is-clearly-better": (1, 1), "b-is-slightly-better": (2, 0.5), "Tie": (1.5, None),
         "B": (2, None), "model_a": (1, None), None: (None, None)}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".jsonl"])
def test_sheets_of_human_evaluation(tmp_path: Path, suffix: str) -> None:
    """As Tulu's: words of five grades, by evaluators, without the texts; and shares in a column of any name."""
    table = pd.DataFrame({"evaluator": "ann", "instance_id": range(len(WORDS)), "model_a": "m", "model_b": "n",
                          "preference": list(WORDS)})  # fmt: skip
    sheet, counted = tmp_path / f"sheet{suffix}", tmp_path / f"counted{suffix}"
    shares = table.drop(columns="preference").assign(b_wins=[1, 0, 0.5, None, 1, 1, 0])
    for made, path in ((table, sheet), (shares, counted)):
        if suffix == ".xlsx":
            pytest.importorskip("openpyxl")
            made.to_excel(path, index=False)
        else:
            formats.write_table(made, path)
    found = feedback_sets.read(sheet)
    assert (found.format, found.table["annotator"][0], found.table["generator_2"][0]) == ("sheets", "ann", "n")
    said = found.table[["preference", "strength"]].astype(object).where(lambda t: t.notna(), None)
    assert [tuple(row) for row in said.to_numpy().tolist()] == [*WORDS.values()]
    assert found.table["status"].tolist() == ["ok"] * 6 + ["unparseable"]
    other = feedback_sets.read(counted, {"preferred": "b_wins"}).table["preference"].tolist()
    np.testing.assert_array_equal(other, [2, 1, 1.5, np.nan, 2, 2, 1])
    feedback_sets.convert(sheet, tmp_path / "battles.csv", "battles")
    assert formats.read_table(tmp_path / "battles.csv")["winner"].tolist()[:4] == [
        "model_a",
        "model_a",
        "model_b",
        "tie",
    ]


def test_a_sheet_of_your_own_that_compares_two(tmp_path: Path) -> None:
    """Without the models' names; a 1 for the second was read as a preference for the first, and a 0 as a tie."""
    mine = pd.DataFrame({"question": ["q", "r"], "ours": ["x", "y"], "theirs": ["z", "w"], "b_wins": [1, 0]})
    texts = {"instruction": "question", "output_1": "ours", "output_2": "theirs"}
    for names in (texts, {"prompt": "question", "completion_a": "ours", "completion_b": "theirs"}):
        table = feedback_sets.of_table(mine, "mine.csv", {**names, "preferred": "b_wins"}).table
        assert table[["instruction", "output_1", "generator_2"]].iloc[1].tolist() == ["r", "y", "b"]
        assert table["preference"].tolist() == [2, 1]
    with pytest.raises(UserError, match=r"mine\.csv: `b_wins` is 0 or 1, and a `preference` of 1 .* map it to `pref"):
        feedback_sets.of_table(mine, "mine.csv", {**texts, "preference": "b_wins"})


def test_a_column_preferred_makes_no_sheet_of_what_compares_nothing() -> None:
    """Failed: ratings and checks with a column of this name were read as pairs without texts."""
    one = pd.DataFrame({"instruction": ["q", "r"], "output": ["x", "y"], "preferred": [0, 1]})
    assert feedback_sets.of_table(one.assign(score=[1, 2]), "mine.json").kind == "ratings"
    assert feedback_sets.of_table(one.assign(right=[True, False]), "mine.json").kind == "checks"
    two = one.assign(output_1="x", output_2="y", preference=[1, 2])
    assert "model_a" not in feedback_sets.of_table(two, "mine.json").table


def test_a_sheet_without_openpyxl_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"sheet\.xlsx: a sheet needs the package openpyxl.*\[sheets\]"):
        feedback_sets.read(tmp_path / "sheet.xlsx")
    with pytest.raises(UserError, match="sheets are read and not written"):
        formats.check_table(tmp_path / "out.xlsx")


def test_what_is_wanted_decides_where_columns_are_those_of_two_formats() -> None:
    rows = pd.DataFrame(
        [{"instruction": "q", "output": o, "score": s, "right": s > 1} for o, s in (("a", 1), ("b", 2))]
    )
    assert feedback_sets.of_table(rows, "r").kind == "checks"
    assert feedback_sets.of_table(rows, "r", kind="ratings").kind == "ratings"
    assert feedback_sets.of_table(rows, "r", kind="pairs").kind == "ratings"  # from which pairs follow


def test_rows_of_arena_hard_without_a_baseline_have_that_of_its_first_version() -> None:
    games = [{"score": "A>B"}, {"score": "B>A"}]
    rows = [{"question_id": k, "model": "m", "judge": "j", "games": games} for k in range(2)]
    read = arena_hard.read(pd.DataFrame([rows[0], {**rows[1], "baseline": "b"}]), "x")
    assert read["generator_1"].tolist() == ["gpt-4-0314"] * 2 + ["b"] * 2


def test_both_games_of_arena_hard_are_battles_with_the_baseline(tmp_path: Path) -> None:
    """What A is changes with the game, and a judge who always says A prefers nobody."""
    games = [("A>>B", "A>>B"), ("B>A", "A>B"), ("A=B", None)]
    rows = [
        {"question_id": k, "model": "m", "judge": "j", "games": [{"score": one}, {"score": two}]}
        for k, (one, two) in enumerate(games)
    ]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    feedback_sets.convert(tmp_path / "judged.jsonl", tmp_path / "battles.csv", "battles")
    battles = formats.read_table(tmp_path / "battles.csv")
    assert battles["winner"].tolist()[:5] == ["model_a", "model_b", "model_b", "model_b", "tie"]
    assert set(battles["model_a"]) == {"gpt-4-0314"} and battles["winner"].isna().tolist() == [False] * 5 + [True]
    assert battles["id"].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(UserError, match="arena_hard is read and not written"):
        feedback_sets.convert(tmp_path / "judged.jsonl", tmp_path / "same.jsonl")
