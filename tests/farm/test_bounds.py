"""Bounds of settings are types: read from YAML, from Python and by the JSON schema alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from annotators.feedback.critiques import PersonCritic
from annotators.noise.expertise import Expertise
from annotators.people.logit import LogitAnnotator
from eval.evaluators.leaderboard import Leaderboard
from farm.base.bounds import Confidence, Count, NotNegative, Positive, Share, check
from farm.base.errors import UserError
from farm.experiments.schema import experiment_schema
from farm.roles import config
from farm.roles.protocols import Evaluator, Method
from farm.worlds.alpaca_farm import AlpacaFarmWorld
from farm.worlds.grid import GridWorld
from farm.worlds.matrix import MatrixWorld
from farm.worlds.outcomes import OutcomesWorld
from farm.worlds.pocket.world import PocketWorld
from farm.worlds.quiz_table import QuizTableWorld
from farm.worlds.text import TextWorld
from reference_methods.pairs.dpo import DPO


@dataclass(frozen=True)
class Bounded:
    share: Share = 0.5
    prompts: Count | None = None
    weights: dict[str, Positive] | None = None
    strength: NotNegative = 0.0
    confidence: Confidence = 0.95
    free: float = 0.0

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"share": 1.01}, "`share` = 1.01 is wrong: input should be less than or equal to 1"),
        ({"prompts": 0}, "`prompts` = 0 is wrong: input should be greater than or equal to 1"),
        ({"weights": {"a": 1.0, "b": 0.0}}, "`weights.b` = 0.0 is wrong: input should be greater than 0"),
        ({"strength": float("inf")}, "`strength` = inf is wrong: input should be a finite number"),
        ({"strength": float("nan")}, "`strength` = nan is wrong"),
        ({"confidence": 1}, "`confidence` = 1 is wrong: input should be less than 1"),
    ],
)
def test_a_value_out_of_bounds_is_refused_in_python(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Bounded(**settings)


def test_the_ends_of_a_closed_interval_and_what_has_no_bound_are_allowed() -> None:
    Bounded(share=0, prompts=None, weights={}, free=float("-inf"))
    Bounded(share=1.0, prompts=1)


@pytest.mark.parametrize(
    ("make", "role", "spec", "key"),
    [
        (Leaderboard, Evaluator, {"class": "eval.evaluators.leaderboard.Leaderboard", "rounds": 0}, "rounds"),
        (DPO, Method, {"class": "reference_methods.pairs.dpo.DPO", "label_smoothing": 0.5}, "label_smoothing"),
        (DPO, Method, {"use": "dpo", "beta": -1}, "beta"),
    ],
)
def test_yaml_and_python_refuse_alike(make: Any, role: Any, spec: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"`{key}` = ") as python:
        make(**{key: spec[key]})
    with pytest.raises(UserError) as yaml:
        config.build(role, spec, origin="x.yaml")
    assert str(python.value) in str(yaml.value)
    assert str(yaml.value).startswith("x.yaml")


@pytest.mark.parametrize(
    ("make", "settings", "key"),
    [
        (TextWorld, {"instructions": "f.json", "shares": (0.7, 0.5, -0.2)}, "shares.2"),
        (TextWorld, {"instructions": "f.json", "max_new_tokens": 0}, "max_new_tokens"),
        (TextWorld, {"instructions": "f.json", "top_p": 0}, "top_p"),
        (AlpacaFarmWorld, {"rows_at_once": -1}, "rows_at_once"),
        (QuizTableWorld, {"answers": 0}, "answers"),
        (MatrixWorld, {"utilities": [0.0], "prompts": 0}, "prompts"),
        (PocketWorld, {"epochs": 0}, "epochs"),
        (GridWorld, {"rewards": {}, "gamma": 1.5}, "gamma"),
        (OutcomesWorld, {"q": 1.5}, "q"),
    ],
)
def test_a_world_made_in_python_keeps_the_bounds_of_its_settings(make: Any, settings: dict[str, Any], key: str) -> None:
    """Read from YAML they were refused; made from Python, they were not."""
    with pytest.raises(ValueError, match=f"`{key}` = .* is wrong: input should be"):
        make(**settings)


def test_annotators_check_what_their_fields_say() -> None:
    with pytest.raises(ValueError, match="`opinion_persistence` = 2"):
        LogitAnnotator(None, opinion_persistence=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`rates\.math` = 2"):
        Expertise(None, {"math": 2})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"remarks": -1}, {"scale": 0.0}])
def test_a_critic_has_bounds(wrong: dict[str, Any]) -> None:
    """Failed: -1 left the last remark out, and a scale of 0 gave polarities that are no numbers."""
    with pytest.raises(ValueError, match="is wrong: input should be greater"):
        PersonCritic(None, **wrong)  # type: ignore[arg-type]


def test_the_schema_shows_bounds_and_an_editor_can_hold_to_them() -> None:
    definitions = experiment_schema()["$defs"]
    dpo = definitions["reference_methods.pairs.dpo.DPO"]["properties"]
    assert dpo["beta"] == {"minimum": 0, "type": "number", "default": 0.1}
    assert dpo["label_smoothing"] == {"minimum": 0, "exclusiveMaximum": 0.5, "type": "number", "default": 0.0}
    assert dpo["max_gradient_norm"]["exclusiveMinimum"] == 0
    for value, fits in ((0.1, True), (-0.1, False)):
        assert jsonschema.Draft202012Validator(dpo["beta"]).is_valid(value) == fits


@dataclass(frozen=True)
class Restated(Bounded):
    share: float = 0.25
    prompts: int = 3
    strength: float | None = None


def test_a_field_that_is_restated_without_its_bound_keeps_it() -> None:
    """A method of one's own gives a default as `beta: float = 0.3`."""
    with pytest.raises(ValueError, match="`share` = 2 is wrong: input should be less than or equal to 1"):
        Restated(share=2)
    Restated(prompts=0, strength=-1.0)  # of other types than before: they say for themselves


@pytest.mark.parametrize("name", ["learning_rate", "beta", "epochs", "batch_size", "steps", "rollouts", "n", "warm_up"])
def test_every_method_bounds_what_other_methods_bound(name: str) -> None:
    methods = [d for path, d in experiment_schema()["$defs"].items() if path.startswith("reference_methods.")]
    found = [d["properties"][name] for d in methods if name in d.get("properties", {})]
    assert len(found) > 1
    for schema in found:
        assert "inimum" in str(schema)  # or exclusiveMinimum
