"""Configuration: a class's signature is its schema, and every mistake is one sentence with file and key."""

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.experiments import experiment
from farm.roles import config, named_configs
from farm.roles.protocols import Annotator, Context


@dataclass(frozen=True)
class Always:
    preference: float = 1.0
    names: tuple[str, ...] = ()

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return pairs.assign(preference=self.preference)


@dataclass(frozen=True)
class Wrap:
    annotator: Annotator
    others: list[Annotator]
    store: object = None

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.annotator.annotate(pairs, seed=seed)


class NotAnAnnotator:
    pass


HERE = __name__
ALWAYS = f"{HERE}.Always"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def test_nested_specs_are_built_and_context_is_handed_over() -> None:
    spec = {"class": f"{HERE}.Wrap", "annotator": {"class": ALWAYS, "preference": 2}, "others": [{"class": ALWAYS}]}
    built = config.build(Annotator, spec, Context(store="the store"))  # type: ignore[arg-type]
    assert built == Wrap(Always(2.0), [Always()], "the store")


def test_description_writes_defaults_out_and_is_the_same_for_the_same_object() -> None:
    short = config.described(Annotator, {"class": ALWAYS})
    assert short == {"class": ALWAYS, "preference": 1.0, "names": ()}
    assert config.described(Annotator, {"class": ALWAYS, "preference": 1.0, "about": "x"}) == short


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"class": ALWAYS, "prefrence": 1}, "unknown key `prefrence` of Always; did you mean `preference`"),
        ({"class": ALWAYS, "preference": "x"}, "`preference` = 'x' is wrong"),
        ({"class": f"{HERE}.Wrap", "others": []}, "`annotator` of Wrap is missing"),
        ({"class": f"{HERE}.Allways"}, "has no class `Allways`; did you mean `Always`"),
        ({"class": f"{HERE}.NotAnAnnotator"}, "cannot play the role Annotator: it lacks `annotate`"),
        ({"class": "os.path.join"}, "cannot play the role Annotator"),
        ({"class": "no_such_package.Thing"}, "there is no module no_such_package"),
        ({"class": "..x.Y"}, "'..x.Y' is not an import path"),
        ({"class": "/abs/x.Y"}, "'/abs/x.Y' is not an import path"),
        ({"class": "x..Y"}, "is not an import path"),
        ({"class": "class.Y"}, "is not an import path"),
        ({"class": "x" * 5000}, "is not an import path"),
        ({"class": ""}, "is not an import path"),
        ({"class": ALWAYS, "preference": math.nan}, "`preference` = .nan is wrong: it is not a number"),
        ({"class": ALWAYS, "names": ["a", math.nan]}, "`names` = .nan is wrong"),
        (
            {"class": f"{HERE}.Wrap", "annotator": {"class": ALWAYS, "preference": math.nan}, "others": []},
            "preference` = .nan",
        ),
        ({"use": "training", "rate": math.nan}, "`rate` = .nan is wrong"),
        ({"preference": 1}, "`class` .* or `use` .* is missing"),
        ("trainin", "no such config in configs/annotators; did you mean `training`"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
    ],
)
def test_every_mistake_is_one_sentence(spec: config.Spec, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        config.build(Annotator, spec, origin="here")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("class Other: pass", "has no class `Mine`; known: Other"),
        ("class Mine: pass", "cannot play the role Annotator: it lacks `annotate`"),
        ("from dataclasses import dataclass\n@dataclass\nclass Mine:\n    x: int = 1", "it lacks `annotate`"),
        ("class Mine:\n    def annotate(", "not_run_for_test.py line 2 is not Python"),
    ],
)
def test_a_module_that_cannot_serve_is_not_run(tmp_path: Path, text: str, complaint: str) -> None:
    run = tmp_path / "was run"
    (tmp_path / "not_run_for_test.py").write_text(f"{text}\nopen({str(run)!r}, 'w').close()\n")
    (tmp_path / "mine.yaml").write_text("class: not_run_for_test.Mine\n")
    for use in (config.build, config.described):
        with pytest.raises(UserError, match=complaint):
            use(Annotator, str(tmp_path / "mine.yaml"))
    assert not run.exists()


@pytest.mark.parametrize(
    "setting", ["temperature=.nan", "sizes.pairs=.nan", "judges.judge.temperature=.nan", "methods.dpo.beta=.nan"]
)
def test_settings_refuse_what_is_not_a_number(setting: str) -> None:
    with pytest.raises(UserError, match=f"`{setting.partition('=')[0]}` = .nan is wrong"):
        experiment.load("pocket", [setting])


def test_a_named_config_with_a_changed_argument(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"about: mine\nclass: {ALWAYS}\npreference: 1.25\n")
    assert config.build(Annotator, str(file)) == Always(1.25)
    assert config.build(Annotator, {"use": str(file), "preference": 1.75}) == Always(1.75)
    outer = tmp_path / "outer.yaml"
    outer.write_text(f"class: {HERE}.Wrap\nannotator: {file}\nothers: []\n")
    changed = config.build(Annotator, {"use": str(outer), "annotator": {"preference": 1.5}})
    assert changed == Wrap(Always(1.5), [])
    file.write_text(f"class: {ALWAYS}\npreferense: 1\n")
    with pytest.raises(UserError, match=r"mine\.yaml: unknown key `preferense`"):
        config.build(Annotator, str(file))


def test_a_class_beside_its_yaml_is_found(tmp_path: Path) -> None:
    (tmp_path / "beside_module_for_test.py").write_text(
        "class Mine:\n    def annotate(self, pairs, *, seed, replicate=0):\n        return pairs\n"
    )
    (tmp_path / "mine.yaml").write_text("class: beside_module_for_test.Mine\n")
    assert type(config.build(Annotator, str(tmp_path / "mine.yaml"))).__name__ == "Mine"


def test_a_class_beside_its_yaml_is_found_inside_another_spec(tmp_path: Path) -> None:
    (tmp_path / "nested_module_for_test.py").write_text(
        "class Mine:\n    def annotate(self, pairs, *, seed, replicate=0):\n        return pairs\n"
    )
    inner = {"class": "nested_module_for_test.Mine"}
    (tmp_path / "outer.yaml").write_text(f"class: {HERE}.Wrap\nannotator: {inner}\nothers: [{inner}]\n")
    assert type(config.build(Annotator, str(tmp_path / "outer.yaml")).annotator).__name__ == "Mine"  # type: ignore[attr-defined]
    assert config.described(Annotator, str(tmp_path / "outer.yaml"))["annotator"] == inner


def test_a_config_that_uses_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "self.yaml"
    file.write_text(f"use: {file}\n")
    with pytest.raises(UserError, match="uses itself"):
        config.build(Annotator, str(file))


def test_yaml_is_loaded_safely_and_repeated_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: the key `a` stands twice"):
        named_configs.parse_yaml("a: 1\na: 2\n", "x.yaml")
    with pytest.raises(UserError, match=r"x\.yaml line 1"):
        named_configs.parse_yaml("!!python/object/apply:os.system ['true']", "x.yaml")


def test_settings_reach_into_specs_given_by_name() -> None:
    data = config.override({"annotator": "training"}, ["annotator.rate=0.1", "sizes.pairs=5"])
    assert data == {"annotator": {"use": "training", "rate": 0.1}, "sizes": {"pairs": 5}}
    with pytest.raises(UserError, match="write it as key=value"):
        config.override({}, ["novalue"])


def test_what_is_listed_needs_no_tables() -> None:
    """They take most of a second to import, and `farm list` is asked while one waits."""
    code = "import sys; from farm.roles import named_configs; named_configs.listed(); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
