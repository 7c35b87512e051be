"""`farm run --dry-run`: the price of verdicts that were never asked for, and GPU time that was never measured."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from annotators.face.options import AnnotateOptions
from annotators.llm.foresee import foresee as foreseen_price
from annotators.runs.annotation_run import prepare
from farm.experiments import experiment
from farm.experiments.plan import Plan
from farm.experiments.running import StudyRunner
from farm.experiments.stages.method import MethodStage
from farm.forecasts import arithmetic
from farm.forecasts.forecast import foresee, text
from farm.roles import config
from farm.roles.protocols import Annotator
from farm.roles.work import Texts
from farm.tables.formats import write_table
from tests.farm.table_world import finish, start, write

LLM = "{class: annotators.llm.annotator.LLMAnnotator, model: openai/gpt-5.4}"
FOREIGN = """
class Oracle:
    def annotate(self, pairs, *, seed, replicate=0):
        raise AssertionError("a dry run asks nobody")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FARM_PRICES", raising=False)
    (tmp_path / "somebody_else.py").write_text(FOREIGN)
    return write(tmp_path)


def look(*settings: str) -> dict[str, object]:
    return foresee(StudyRunner(experiment.load("table.yaml", settings)), 1)


def test_programs_are_free_and_said_to_be(here: Path) -> None:
    found = look()
    assert found["price"] == 0
    assert found["verdicts_without_a_price"] == 0
    assert "Verdicts to ask for: at most 900, free: programs give them." in text(found)
    shown, _ = finish(start(here, "home", "--dry-run"))
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line and not line.startswith(" ")}
    assert rows["feedback"][-1] == "free"
    assert rows["judgement"][-1] == "free"


def test_language_models_are_priced_by_table_and_tokens(here: Path) -> None:
    found = look(f"judges.judge={LLM}")
    assert found["models"] == ["openai/gpt-5.4"]
    assert found["price"] == pytest.approx((found["input_tokens"] * 2.5 + found["output_tokens"] * 15) / 1e6, rel=0.01)
    assert found["output_tokens"] == 300  # one token each, from three policies' hundred answers
    assert "openai/gpt-5.4: " in text(found)
    once = look(f"annotator={LLM}")
    half = look(f"annotator={{class: annotators.noise.flip.Flip, rate: 0.25, annotator: {LLM}}}")
    assert 0.3 * once["price"] < half["price"] < 0.7 * once["price"]  # type: ignore[operator]


def test_the_estimate_is_that_of_farm_annotate(here: Path) -> None:
    pairs = pd.DataFrame(
        {
            "instruction": [f"question {i}" for i in range(30)],
            "output_1": [f"{'a' * (i + 1)}" for i in range(30)],
            "output_2": [f"{'b' * (2 * i + 1)}" for i in range(30)],
        }
    )
    write_table(pairs, here / "pairs.json")
    name = "alpaca_farm_pool"
    spec = config.described(Annotator, name)
    built = prepare(here / "pairs.json", name, here / "out.json", AnnotateOptions(seed=5, order="given"))
    said = built.plan()
    found = foreseen_price(spec, lambda: built.giver, lambda: built.rows, 5)
    assert found is not None
    assert found["price"] == pytest.approx(said["cost_estimate"], abs=1e-6)
    assert found["input_tokens"] == said["input_tokens"] > 0
    assert found["models"] == said["models"]


def test_what_nobody_knows_is_said_to_be_unknown(here: Path) -> None:
    found = look("judges.judge={class: somebody_else.Oracle}")
    assert found["verdicts_without_a_price"] == 300
    assert "of 300 the price is not known before such an annotator has been asked once" in text(found)
    found = look("judges.judge={class: annotators.llm.annotator.LLMAnnotator, model: openai/unheard}")
    assert found["models_without_a_price"] == ["openai/unheard"]
    assert "of 300 the price is not known, name openai/unheard in a file of prices (FARM_PRICES)" in text(found)


def test_what_is_on_record_goes_before_what_is_computed(here: Path) -> None:
    finish(start(here, "home", "--out", "run"))
    found = look("methods.dpo.beta=0.7")
    assert found["price"] == 0
    judged = [s for s in found["stages"] if s["stage"] == "judge judges dpo"]  # type: ignore[attr-defined]
    assert judged[0]["seconds"] is not None
    assert judged[0]["questions"] is None  # looked up, not asked for


def test_methods_that_ask_while_they_learn_are_named(here: Path) -> None:
    found = look("methods.odpo={use: online_dpo, learning_rate: 0.1}")
    assert found["ask_while_they_learn"] == ["odpo"]
    assert "Not counted: what odpo will ask while learning" in text(found)


def test_gpu_time_by_arithmetic(here: Path) -> None:
    runner = StudyRunner(experiment.load("alpaca_farm", ["world.data=nowhere"]))
    found = foresee(runner, 1)
    seconds = {s["stage"]: s["seconds"] for s in found["stages"]}
    assert seconds["sft"] == pytest.approx(3 * 10_000 * 364 * 6 * 7e9 / (0.4 * 400e12))
    assert seconds["responses"] == pytest.approx(20_000 * 300 * 2 * 7e9 / (0.1 * 400e12))
    assert seconds["best_of_n"] == 0
    assert seconds["best_of_n answers"] > 8 * seconds["dpo answers"]
    assert seconds["pairs"] is None
    assert found["gpu_hours"] == pytest.approx(sum(s for s in seconds.values() if s is not None) / 3600)
    assert found["stages_computed"] == 30
    assert 1 < found["price"] < 30
    assert "assumed for 30 GPU stages by the model's arithmetic" in text(found)
    assert "texts taken as 160 and 400 characters" in text(found)
    unknown = foresee(StudyRunner(experiment.load("alpaca_farm", ["world.data=nowhere", "world.model=mine"])), 1)
    assert unknown["gpu_hours"] == 0
    assert unknown["stages_without_a_time"] == 45


def test_a_critic_reads_and_learns_as_the_policy_does(here: Path) -> None:
    """PPO was foreseen as if it had none, and took twice as long in training."""
    runner = StudyRunner(experiment.load("alpaca_farm", ["world.data=nowhere", "methods.rloo=rloo"]))
    seconds = {s["stage"]: s["seconds"] for s in foresee(runner, 1)["stages"]}
    for name, critic in (("ppo", 1), ("rloo", 0)):
        spec = runner.plans[0].setting.description["methods"][name]
        n = spec["steps"] * spec["rollouts"]
        texts = 6 * (1 + critic) * spec["epochs"] * n / arithmetic.TRAINING + 2 * (2 + critic) * n / arithmetic.SCORING
        written = 2 * n * 300 / arithmetic.SAMPLING
        assert seconds[name] == pytest.approx(7e9 * (364 * texts + written) / arithmetic.PEAK), name


def test_the_size_of_a_model(tmp_path: Path) -> None:
    import json

    assert arithmetic.parameters("HuggingFaceTB/SmolLM2-135M-Instruct") == 135e6
    assert arithmetic.parameters("huggyllama/llama-7b") == 7e9
    assert arithmetic.parameters("Qwen/Qwen2.5-1.5B") == 1.5e9
    assert arithmetic.parameters("gpt2") is None
    smollm2 = {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps({**smollm2, **heads}))
    assert arithmetic.parameters(str(tmp_path)) == pytest.approx(134.5e6, rel=0.002)


def test_a_fresh_home_is_measured_in_a_second(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage of the demo has a time before anything was made, and nothing is made for it."""
    whole = foresee(StudyRunner(experiment.load("pocket")), 1)
    assert whole["stages_without_a_time"] == 0
    assert whole["stages_measured"] == whole["to_do"] == len(whole["stages"]) == 33
    assert all(s["seconds"] > 0 for s in whole["stages"] if s["stage"] != "best_of_n")  # which trains nothing
    assert whole["seconds"] == pytest.approx(sum(s["seconds"] for s in whole["stages"]))
    assert "Time, for 33 stages by what this machine did in a second just now: " in text(whole)
    assert not (here / "home" / "artifacts").exists()
    assert not (here / "home" / "worlds").exists()


def test_what_is_measured_is_scaled_by_the_sizes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.forecasts import measured_speed

    def timed(step: Callable[[], object]) -> float:
        step()
        return 1.0

    monkeypatch.setattr(measured_speed, "_timed", timed)

    def seconds(*settings: str) -> dict[str, float]:
        found = foresee(StudyRunner(experiment.load("pocket", settings)), 1)
        return {s["stage"]: s["seconds"] for s in found["stages"]}

    once = seconds()
    for setting, doubled in (
        ("sizes.pairs=4000", {"responses", "pairs", "reward model", "dpo", "feedme"}),
        ("methods.ppo.steps=40", {"ppo"}),
        ("sizes.samples=8", {stage for stage in once if "answers" in stage or "judges" in stage}),
    ):
        then = seconds(setting)
        assert {stage for stage in once if then[stage] == pytest.approx(2 * once[stage]) and once[stage]} == doubled
    # The base model is made by the first stage that wants it: 28,000 texts, then 4,000 demonstrations.
    assert once["sft"] / seconds("world.documents=0")["sft"] == pytest.approx(8)


def test_a_method_says_how_much_it_does(here: Path) -> None:
    """Failed for the rounds and prompts of expert iteration and RAFT: work was guessed from the names of settings, also
    of a class for which they mean something else."""
    (here / "own_for_test.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Own:\n    steps: int = 7\n"
        "    rollouts: int = 7\n    n: int = 7\n    needs = frozenset()\n\n"
        "    def train(self, learning):\n        return learning.policy\n"
    )
    (here / "own_for_test.yaml").write_text("about: own\nclass: own_for_test.Own\n")
    said = {
        "ppo": ("{steps: 4, rollouts: 64, epochs: 3}", Texts(1536, 768, 256)),
        "dpo": ("{epochs: 3}", Texts(3 * 2 * 50, 2 * 50)),
        "best_of_n": ("{n: 9}", Texts()),
        "expert_iteration": ("{n: 4, rounds: 2, prompts: 10, epochs: 3}", Texts(60, 80, 80)),
        "raft": ("{n: 4, stages: 3, prompts: 10, epochs: 2}", Texts(60, 240, 120)),
        "lipo": ("{prompts: 5, list_size: 4, epochs: 2}", Texts(40, 40, 20)),
        "superhf": (
            "{steps: 3, rollouts: 8, samples_per_prompt: 4, epochs: 2, minibatches: 1}",
            Texts(12, 48 + 12, 24),
        ),
        "own": (f"{{use: {here / 'own_for_test.yaml'}}}", None),
    }
    changes = [f"methods.{name}={spec}" for name, (spec, _) in said.items()]
    study = experiment.load("pocket", ["sizes.pairs=50", *changes])
    setting = Plan(study.variants[0].experiment, study.origin).setting
    assert {name: MethodStage(setting, name).size().texts for name in said} == {n: t for n, (_, t) in said.items()}
