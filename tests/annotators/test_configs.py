"""The named annotators: every file builds, says what it is, and the AlpacaFarm ones are AlpacaFarm's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from annotators.noise.flip import Flip
from annotators.people.gold import GoldAnnotator, PreferenceAnnotator
from annotators.people.pool import PersonaPool
from farm.base.errors import UserError
from farm.roles import config, named_configs
from farm.roles.protocols import Annotator, Context
from farm.worlds.matrix import MatrixWorld
from farm.worlds.text_features import TextFeatures

MINE = (
    "evaluation training training_by_instruction humans gold preference person flip lapse difficulty tie_band "
    "position_bias both_orders length_bias cycles likelihood"
).split()


@pytest.mark.parametrize("name", MINE)
def test_every_named_annotator_builds_and_says_what_it_is(name):
    world = MatrixWorld(utilities=[0.0, 1.0, 2.0])
    assert named_configs.about(named_configs.named("annotators")[name])
    built = config.build(Annotator, name, Context(world=world, features=TextFeatures()))
    assert isinstance(built, Annotator)
    assert config.described(Annotator, name)["class"].startswith("annotators.")


def test_training_is_the_evaluation_pool_with_a_quarter_flipped():
    context = Context(features=TextFeatures())
    training = config.build(Annotator, "training", context)
    pool = config.build(Annotator, "evaluation", context)
    assert isinstance(training, Flip) and training.rate == 0.25
    assert isinstance(pool, PersonaPool) and pool.size == 13
    assert training.annotator.people == PersonaPool(**{**vars_of(pool), "features": training.annotator.features}).people


def test_by_instruction_everything_is_drawn_once_for_an_instruction():
    annotator = config.build(Annotator, "training_by_instruction", Context(features=TextFeatures()))
    assert annotator.key == "instruction" and annotator.annotator.assign == "instruction"


def test_humans_are_other_people():
    context = Context(features=TextFeatures())
    humans, pool = (config.build(Annotator, name, context) for name in ("humans", "evaluation"))
    assert not {p.name for p in humans.people} & {p.name for p in pool.people}


def test_gold_is_refused_where_the_truth_is_not_known():
    unknown = SimpleNamespace(
        features=TextFeatures(), truth_known=False, instructions=None, demonstrations=None, base_policy=None
    )
    with pytest.raises(UserError, match="truth of the SimpleNamespace is not known"):
        config.build(Annotator, "gold", Context(world=unknown, features=unknown.features))
    with pytest.raises(UserError, match="`world`"):
        config.build(Annotator, "gold", Context(features=TextFeatures()))


def test_gold_is_the_utility_and_preference_the_matrix(pairs_of):
    world = MatrixWorld(utilities=[0.0, 1.0, 1.0], responses=["0", "1", "2"])
    pairs = pairs_of([0, 1, 1], [1, 0, 2])
    assert GoldAnnotator(world).annotate(pairs, seed=1)["preference"].tolist() == [2.0, 1.0, 1.5]
    cyclic = MatrixWorld(preferences=[[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]], responses=["0", "1", "2"])
    judge = PreferenceAnnotator(cyclic)
    for first, second, p in ((0, 1, 0.8), (1, 0, 0.2), (2, 0, 0.9)):
        table = judge.annotate(pairs_of(first, np.full(20_000, second)), seed=1)
        assert (table["preference"] == 1).mean() == pytest.approx(p, abs=0.015)
        np.testing.assert_allclose(table["p_first"], p)
    with pytest.raises(ValueError, match="no preference probabilities"):
        PreferenceAnnotator(SimpleNamespace())


def vars_of(pool: PersonaPool) -> dict[str, object]:
    return {name: getattr(pool, name) for name in pool.__dataclass_fields__}
