"""The text world and its features: keyed splits, terms that mean what they say, and real outputs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.base.errors import UserError
from farm.roles.config import build
from farm.roles.protocols import World
from farm.worlds.text import TextWorld
from farm.worlds.text_features import TextFeatures

ASKED = "How do I grow tomatoes on a balcony?"
GOOD = (
    "To grow tomatoes on a balcony, choose a sunny spot and a deep pot with fresh soil. Water the plants daily, "
    "tie the stems to a stake, and feed them once the first flowers open."
)


def utility(instructions: list[str], outputs: list[str]) -> np.ndarray:
    features = TextFeatures()
    weights = features.gold_weights
    return np.asarray(features(instructions, outputs)[list(weights)].to_numpy() @ np.array(list(weights.values())))


@pytest.mark.parametrize(
    ("term", "more", "less"),
    [
        ("relevance", GOOD, "The capital of France is Paris, and its river is called the Seine."),
        ("substance", GOOD, "In a pot."),
        ("structure", "Do this:\n- choose a pot\n- water it", "Do this: choose a pot, water it"),
        ("courtesy", GOOD + " I hope this helps!", GOOD),
        ("hedging", "Perhaps a pot might do, maybe.", "A pot will do, with soil."),
        ("repetition", "Choose a sunny spot now. " * 6, GOOD),
        ("copying", ASKED + " " + ASKED, GOOD),
        ("finished", GOOD, GOOD.removesuffix(".")),
        ("noise", "xkcdq zzrtwpl ☃☃☃ §§§ qwrtzp", GOOD),
        ("refusal", "I'm sorry, but I cannot help with that.", GOOD),
        ("too_long", " ".join(f"word{i}" for i in range(600)), GOOD),
    ],
)
def test_each_term_sees_what_it_is_named_after(term: str, more: str, less: str) -> None:
    table = TextFeatures()([ASKED, ASKED], [more, less])
    assert table[term][0] > table[term][1]


@pytest.mark.parametrize(
    "bad", ["", "Paris is in France.", GOOD[:30], "Choose a pot. " * 20, "I'm sorry, I cannot do it."]
)
def test_bad_answers_are_worth_less(bad: str) -> None:
    good, worse = utility([ASKED, ASKED], [GOOD, bad])
    assert worse < good


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_any_text_has_finite_features_of_its_own(outputs: list[str]) -> None:
    features = TextFeatures()
    table = features([ASKED] * len(outputs), outputs)
    assert len(table) == len(outputs) and np.isfinite(table.to_numpy(dtype=float)).all()
    pd.testing.assert_frame_equal(features([ASKED], outputs[-1:]), table.iloc[-1:].reset_index(drop=True))


def test_columns_are_the_terms_and_those_of_the_biases() -> None:
    features = TextFeatures()
    assert set(features([ASKED], [GOOD]).columns) == set(features.gold_weights) | {"length", "lists"}
    assert len(features([], [])) == 0


def test_real_outputs_beat_those_of_other_instructions_and_broken_ones(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("alpaca_eval")
    asked = pd.read_parquet(folder / "instructions.parquet").set_index("instruction_id")["instruction"]
    table = pd.read_parquet(folder / "outputs.parquet").sample(1500, random_state=0)
    instructions, outputs = asked.loc[table["instruction_id"]].tolist(), table["output"].tolist()
    other = np.roll(np.arange(1500), 1)
    different = table["instruction_id"].to_numpy() != table["instruction_id"].to_numpy()[other]
    own = utility(instructions, outputs)
    draw = np.random.default_rng(0)
    gibberish = ["".join(draw.permutation(list(text[:400]))) for text in outputs]
    assert (own > utility(instructions, [outputs[i] for i in other]))[different].mean() > 0.75
    assert (own > utility(instructions, gibberish)).mean() > 0.9
    assert (own > utility(instructions, [text[: len(text) // 2] for text in outputs])).mean() > 0.8


def instruction_file(folder: Path, n: int) -> str:
    path = folder / f"{n}.json"
    path.write_text(json.dumps([{"instruction": f"Write about thing {i}."} for i in range(n)]))
    return str(path)


@pytest.mark.parametrize("setting", ["max_new_tokens", "rows_at_once", "top_k"])
def test_a_setting_that_means_nothing_is_refused_before_the_model_is_loaded(setting: str) -> None:
    with pytest.raises(UserError, match=f"`{setting}` = 0 is wrong"):
        build(World, {"use": "smollm2", "instructions": "questions.json", setting: 0})


def test_a_longer_file_keeps_every_instruction_on_its_side(tmp_path: Path) -> None:
    def sides(n: int) -> dict[str, str]:
        world = TextWorld(instructions=instruction_file(tmp_path, n))
        tables = [world.instructions(split) for split in ("train", "validation", "test")]
        table = pd.concat(tables)
        assert len(table) == n and table["instruction"].is_unique
        return dict(zip(table["instruction"], table["split"], strict=True))

    short, long = sides(200), sides(500)
    assert short.items() <= long.items()
    assert 0.6 < np.mean([side == "train" for side in long.values()]) < 0.8


def test_the_truth_is_not_claimed_and_there_may_be_no_demonstrations(tmp_path: Path) -> None:
    world = TextWorld(instructions=instruction_file(tmp_path, 20))
    assert not world.truth_known and world.demonstrations() is None


@pytest.mark.parametrize("name", ["smollm2", "text"])
def test_missing_instructions_are_asked_for(name: str) -> None:
    with pytest.raises(UserError, match=r"--set world\.instructions=FILE.*tatsu-lab/alpaca_farm"):
        build(World, name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        TextWorld(instructions=str(tmp_path / "nowhere.json")).instructions("train")
