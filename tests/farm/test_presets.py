"""Presets and names: which settings a method has in a world, and who said each of them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from farm.base.errors import UserError
from farm.experiments import experiment, origins, presets
from farm.experiments.setting import describe
from farm.roles import config, named_classes, named_configs
from farm.roles.protocols import Context, Method
from farm.worlds.matrix import MatrixWorld

PRESETS = sorted(named_configs.named("presets"))


def described(world: Any, methods: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = {"name": "x", "world": world, "methods": methods, **more}
    return describe(experiment.from_mapping(data, "here").variants[0].experiment, "here")


# Recorded from the files pocket_ppo.yaml, smollm2_ppo.yaml ... that the presets replaced.
KNOWN: dict[tuple[str, str], dict[str, Any]] = {
    ("pocket", "ppo"): {"steps": 20, "rollouts": 192, "epochs": 1, "minibatches": 4, "beta": 0.1, "warm_up": 0.1}
    | {"learning_rate": 5e-4, "value_learning_rate": 1e-3, "schedule": "constant", "missing_eos_reward": -1.0},
    ("pocket", "kto"): {"beta": 0.3, "batch_size": 64, "learning_rate": 5e-4, "schedule": "cosine"},
    ("pocket", "dapo"): {"clip_high": 0.28, "beta": 0.0, "steps": 25, "rollouts": 192, "learning_rate": 3e-4},
    ("pocket", "online_dpo_reward"): {"steps": 30, "duels": 1, "prompts_per_step": 16, "gap_every": 0, "beta": 0.1}
    | {"learning_rate": 1e-3, "cut_responses_lose": True, "warm_up": 0.1, "schedule": "constant"}
    | {
        "preference_model": {
            "class": "reference_methods.models.reward_preference.RewardModelPreference",
            "reward_model": "reward_model",
            "temperature": 1.0,
        }
    },
    ("pocket", "gpo"): {"steps": 16, "prompts_per_step": 48, "duels": 3, "epochs": 2, "gap_every": 5}
    | {
        "preference_model": {
            "class": "reference_methods.models.shared_preference.SharedPreferenceModel",
            "model": "preference_model",
        }
    },
    ("pocket", "alpaca_farm_quark"): {"quantiles": 4, "steps": 20, "rollouts": 384, "minibatches": 1, "beta": 0.05},
    ("smollm2", "ppo"): {"steps": 12, "rollouts": 48, "beta": 0.05, "learning_rate": 5e-5, "value_learning_rate": 2e-4}
    | {"missing_eos_reward": None, "schedule": "constant"},
    ("smollm2", "kto"): {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4},
    ("alpaca_farm", "dpo"): {"beta": 0.1, "epochs": 2, "learning_rate": 1e-6, "batch_size": 64, "warm_up": 0.03},
    ("alpaca_farm", "alpaca_farm_ppo"): {"steps": 80, "rollouts": 512, "warm_up": 0.0156, "beta": 0.0067},
    ("alpaca_farm", "alpaca_farm_ppo_human"): {"steps": 80, "rollouts": 512, "warm_up": 0.0156, "beta": 0.02},
    ("alpaca_farm", "feedme"): {"epochs": 3, "learning_rate": 2e-5, "batch_size": 128, "schedule": "cosine"},
    ("alpaca_farm", "ipo"): {"learning_rate": 1e-6, "batch_size": 64},
}


@pytest.mark.parametrize(("world", "method"), KNOWN)
def test_a_name_alone_has_what_fits_its_world(world: str, method: str) -> None:
    known, found = KNOWN[world, method], described(world, {method: None})["methods"][method]
    assert {key: found[key] for key in known} == known


def test_the_last_to_say_a_value_wins(tmp_path: Path) -> None:
    """Class, fields, then for each name along `use` its file and the preset's entry, then the experiment."""
    (tmp_path / "mine.yaml").write_text("use: dapo\nsteps: 3\nrollouts: 40\n")
    (tmp_path / "preset.yaml").write_text(
        "fields: {steps: 1, rollouts: 8, clip_high: 0.5, epochs: 7, batch_size: 3}\n"
        "methods: {grpo: {gamma: 9.0}, dapo: {steps: 2, refills: 4}}\n"
    )
    world = {"use": "matrix", "preset": str(tmp_path / "preset.yaml")}
    mine = {"use": str(tmp_path / "mine.yaml"), "rollouts": 50}
    found = described(world, {"mine": mine, "dpo": None, "ppo": {"epochs": 2}}, sft=None)["methods"]
    bare = described("matrix", {"dpo": None}, sft=None)["methods"]["dpo"]
    assert found["mine"]["rollouts"] == 50  # the experiment
    assert found["mine"]["steps"] == 3  # the outer file, over the entry of the inner name
    assert found["mine"]["refills"] == 4  # the entry, over its file
    assert found["mine"]["clip_high"] == 0.28  # the inner file, over a field
    assert found["mine"]["epochs"] == 7  # a field, over the class
    assert found["ppo"]["epochs"] == 2
    assert found["dpo"] == {**bare, "batch_size": 3, "epochs": 7}  # of the fields those that its class has


def test_a_change_of_a_nested_method_leaves_the_rest() -> None:
    found = described("pocket", {"nash_md": {"preference_model": "general_preference_model"}})["methods"]["nash_md"]
    assert found["preference_model"]["learning_rate"] == 1e-3  # the entry of that name


def test_defaults_of_the_experiment_and_changes_of_them() -> None:
    said = {"sizes": {"pairs": 7}, "reward_model": {"epochs": 5}}
    found = described("smollm2", {"dpo": None}, **said)
    assert found["sft"] is None and found["answer_temperature"] == 0.7 and found["temperature"] == 1.0
    assert found["reward_model"]["epochs"] == 5 and found["reward_model"]["head"] == "last+sum"
    assert described("smollm2", {"dpo": None}, sft="sft")["sft"]["batch_size"] == 8
    sizes = described("alpaca_farm", {"dpo": None}, **said)["sizes"]
    assert sizes == {"demonstrations": 10000, "pairs": 7, "prompts": 20000, "evaluation": 805, "samples": 1}


def test_each_world_of_a_sweep_has_its_own_preset() -> None:
    data = {"name": "x", "world": "pocket", "methods": {"ppo": None}, "sweep": {"world": ["pocket", "smollm2"]}}
    steps = [
        describe(v.experiment, "x")["methods"]["ppo"]["steps"] for v in experiment.from_mapping(data, "x").variants
    ]
    assert steps == [20, 12]


@pytest.mark.parametrize("name", sorted(named_configs.named("experiments")))
def test_the_resolved_config_is_the_description_and_names_its_preset(name: str) -> None:
    """What `farm config` prints is what a run is made of, and it resolves to itself."""
    found = origins.values(origins.resolved(name))
    study = experiment.load(name)
    plain = describe(study.variants[0].experiment, study.origin)
    swept = {key.split(".")[0] for key in study.whole.sweep or {}}
    for key in {"methods", "sft", "reward_model", "preference_model", "sizes", "answer_temperature"} - swept:
        assert found[key] == plain[key], key
    again = experiment.from_mapping(found, "again").variants[0].experiment
    assert describe(again, "again") == plain


def test_origins_name_the_preset_that_said_a_value() -> None:
    tree = origins.resolved("smollm2", ["methods.ppo.steps=3", "sizes.pairs=5"])
    ppo: Any = tree["methods"]
    said = {key: value.origin for key, value in ppo["ppo"].items()}
    preset = "configs/presets/smollm2.yaml"
    assert said["steps"] == "--set methods.ppo.steps"
    assert said["beta"] == said["rollouts"] == said["missing_eos_reward"] == preset
    assert said["gamma"] == "default of PPO"
    assert said["class"] == "entry point farm.methods (reference_methods.online)"
    top: Any = tree
    assert top["answer_temperature"].origin == preset
    assert top["sizes"]["pairs"].origin == "--set sizes.pairs"
    assert top["world"]["preset"].origin == "configs/worlds/smollm2.yaml"
    farm: Any = origins.resolved("alpaca_farm", ["sizes.pairs=5"])["sizes"]
    assert {key: value.origin for key, value in farm.items()} == {
        **dict.fromkeys(farm, "configs/presets/alpaca_farm.yaml"),
        "pairs": "--set sizes.pairs",
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_entry_of_a_preset_builds_and_every_field_is_known(name: str) -> None:
    """Every entry builds, and every field is one that a method has."""
    preset = presets.load(name).settings
    fields = set()
    for method in named_configs.names("methods"):
        found = config.described(Method, method, preset=preset)
        config.build(Method, method, Context(features=MatrixWorld([0.0, 1.0]).features), preset=preset)
        fields |= {key for key, value in preset.fields.items() if key in found}
    assert fields == set(preset.fields)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"methods": {"pppo": {}}}, "methods: there is no method `pppo`; did you mean `ppo`"),
        ({"methods": {"ppo": {"betta": 1}}}, "preset.yaml: unknown key `betta` of PPO; did you mean `beta`"),
        ({"methods": {"ppo": {"beta": "x"}}}, "preset.yaml: `beta` = 'x' is wrong"),
        ({"methods": {"ppo": {"use": "dpo"}}}, "methods.ppo: `use` cannot be changed by a preset"),
        ({"fields": {"steps": "many"}}, "preset.yaml: `steps` = 'many' is wrong"),
        ({"experiment": {"world": "matrix"}}, "`experiment.world` is for each experiment to say"),
        ({"experiment": {"sizs": {}}}, "unknown key `experiment.sizs`; did you mean `sizes`"),
        ({"method": {}}, "unknown key `method`; did you mean `methods`"),
    ],
)
def test_a_mistake_in_a_preset_is_one_sentence(tmp_path: Path, preset: dict[str, Any], message: str) -> None:
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    data = {
        "name": "x",
        "world": {"use": "matrix", "preset": str(tmp_path / "preset.yaml")},
        "sft": None,
        "methods": {"ppo": None},
    }
    with pytest.raises(UserError) as caught:
        single = experiment.from_mapping(data, "here").variants[0].experiment
        config.build(Method, single.methods["ppo"] or "", preset=presets.of(single.world, "here").settings)  # type: ignore[union-attr]
    assert message in str(caught.value) and "preset.yaml" in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match=r"pockt: no such config in configs/presets; did you mean `pocket`"):
        described({"use": "pocket", "preset": "pockt"}, {"ppo": None})


# --- names ------------------------------------------------------------------------------------------------------------

OTHER = '''"""A method of another package.

It has no loop."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Helper:
    a: int = 1

@dataclass(frozen=True)
class {name}:
    needs = frozenset()
    batch_size: int = 1
    def train(self, learning):
        return learning.policy
'''


def other_package(place: Path, package: str, file: str, name: str) -> None:
    """An installed package, as far as Python can tell, that brings one method."""
    methods = place / package / "methods"
    methods.mkdir(parents=True)
    (place / package / "__init__.py").write_text("")
    (methods / "__init__.py").write_text("")
    (methods / f"{file}.py").write_text(OTHER.format(name=name))
    info = place / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[farm.methods]\n{package} = {package}.methods\n")


def test_another_package_brings_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_package(tmp_path, "other_for_test", "my_new_ppo", "MyNewPPO")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "my_new_ppo" in named_configs.names("methods") and "ppo" in named_configs.names("methods")
    assert named_configs.listed("methods")["methods"]["my_new_ppo"] == "A method of another package"
    assert "other_for_test.methods" not in sys.modules  # a name is found without running it
    found = described("pocket", {"my_new_ppo": None})["methods"]["my_new_ppo"]
    assert found == {"class": "other_for_test.methods.my_new_ppo.MyNewPPO", "batch_size": 32}
    with pytest.raises(UserError, match="my_new_pp: no such config in configs/methods; did you mean `my_new_ppo`"):
        config.build(Method, "my_new_pp")


def test_two_packages_with_one_name_and_one_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_package(tmp_path, "second_for_test", "ppo", "PPO")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"ppo: reference_methods\.online\.ppo\.PPO and second_for_test\.methods\.ppo"):
        config.build(Method, "ppo")
    other_package(tmp_path / "more", "third_for_test", "x", "X")
    (tmp_path / "more" / "third_for_test" / "methods").rename(tmp_path / "more" / "third_for_test" / "moved")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    with pytest.raises(UserError, match=r"third-for-test: .*names third_for_test\.methods, which is no package"):
        config.build(Method, "dpo")


def test_a_name_is_no_path() -> None:
    assert named_classes.find("methods", "../face/api") is None
    assert named_classes.find("methods", "reward_preference") is None  # its class has another name: not a method's file
