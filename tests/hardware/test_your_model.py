"""`farm run text`: what is said of a model of one's own before it is loaded, and what its presets mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.experiments import experiment, origins, presets, room
from farm.experiments.running import StudyRunner
from farm.experiments.setting import describe
from farm.forecasts.forecast import foresee, text
from farm.hardware import machine
from farm.hardware.machine import There
from farm.hardware.room import GIB

LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The config of a model of 1.2B parameters, without its weights."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_1B))
    return tmp_path / "model"


def described(model: Path, *settings: str) -> dict[str, Any]:
    told = [f"world.model={model}", "world.instructions=none.json", *settings]
    return describe(experiment.load("text", told).variants[0].experiment, "here")


def on_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: float, count: int = 1, vllm: bool = False) -> None:
    monkeypatch.setattr(machine, "device", lambda: There("cuda", "a GPU", gigabytes * GIB))
    monkeypatch.setattr(machine, "count", lambda: count)
    monkeypatch.setattr(room, "choice", lambda kind: ("vllm" if vllm else "transformers", ""))


def test_a_dry_run_says_what_fits_and_what_would_before_anything_is_loaded(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    on_gpu(monkeypatch, 24)
    full = ["world.preset=laptop", "world.train_layers=null", "world.compute_dtype=null"]
    told = [f"world.model={model}", "world.instructions=none.json", *full]
    found = foresee(StudyRunner(experiment.load("text", told)), 1)
    shown = text(found)
    assert "It runs on a GPU, 24 GiB." in shown and "1.2B parameters" in shown
    ppo = next(line for line in found["device"] if line.startswith("ppo: "))
    assert "does not fit; with `tune: lora" in ppo
    assert found["preset"] == "consumer_gpu" and "--set world.preset=consumer_gpu" in shown
    fitting = room.lines(described(model, "world.preset=consumer_gpu"))
    assert all("does not fit" not in line for line in fitting) and any(line.startswith("ppo: ") for line in fitting)


def test_vllm_leaves_less_to_the_trainer_and_says_what_it_takes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, 80, vllm=True)
    lines = room.lines(described(model, "world.preset=large_gpu"))
    assert "vLLM takes 28 GiB (weights 2.3, the rest keys and values)" in lines
    assert (
        "of 72 GiB" in next(line for line in lines if line.startswith("dpo: ")) and "activations or vLLM 28" in lines[3]
    )
    little = room.lines(described(model, "world.preset=large_gpu", "world.engine.memory=0.02"))
    assert any("too little for it; raise `world.engine.memory`" in line for line in little)


def test_a_model_whose_config_is_not_here_is_said_to_be_unknown(tmp_path: Path) -> None:
    lines = room.lines(described(tmp_path / "nowhere"))
    assert "is not known, as its config is not here" in lines[1] and len(lines) == 2
    assert room.recommended(described(tmp_path / "nowhere")) is None


def test_worlds_that_stay_on_the_processor_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, 80)
    pocket = describe(experiment.load("pocket").variants[0].experiment, "here")
    (line,) = room.lines(pocket)
    assert line.startswith("runs on the processor") and "faster" in line
    (line,) = room.lines({"title": "a paper, which has no world of its own"})
    assert line.startswith("runs on a GPU")


def test_presets_build_on_each_other_and_set_the_world_too(model: Path) -> None:
    one, four = described(model, "world.preset=large_gpu"), described(model, "world.preset=large_gpus")
    assert one["world"]["dtype"] == four["world"]["dtype"] == "bfloat16"  # of consumer_gpu, two below
    assert one["world"]["engine"]["lora_rank"] == 16 and four["world"]["engine"]["lora_rank"] == 0
    assert one["methods"]["dpo"]["gradient_checkpointing"] and one["methods"]["ppo"]["value_learning_rate"] == 5e-5
    assert one["methods"]["ppo"]["steps"] == 60
    said = described(model, "world.preset=large_gpu", "world.max_new_tokens=17")
    assert said["world"]["max_new_tokens"] == 17  # the experiment, over the preset
    spread = experiment.load("text", ["world.instructions=f.json", "world.preset=large_gpus"]).variants[0].experiment
    assert spread.resources["method"].together == 4


def test_the_origin_of_a_worlds_value_is_the_preset_that_said_it() -> None:
    tree: Any = origins.resolved("text", ["world.instructions=f.json", "world.preset=large_gpu"])
    assert tree["world"]["dtype"].origin == "configs/presets/large_gpu.yaml"
    assert tree["world"]["instructions"].origin == "--set world.instructions"
    assert tree["world"]["model"].origin == "default of TextWorld"


def test_the_laptops_preset_is_smollm2s_with_the_worlds_settings() -> None:
    mine, theirs = presets.load("laptop"), presets.load("smollm2")
    assert mine.settings.methods == theirs.settings.methods and mine.settings.fields == theirs.settings.fields
    assert mine.world["train_layers"] == 8 and theirs.world == {}


def foreseen(model: Path, *settings: str, only: list[str] | None = None) -> list[str]:
    told = [f"world.model={model}", "world.instructions=none.json", *settings]
    lines: list[str] = foresee(StudyRunner(experiment.load("text", told, only=only)), 1)["device"]
    return lines


def test_models_that_no_method_needs_are_not_forecast(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DPO alone was forecast with a reward model; further models of an experiment were not forecast at all."""
    monkeypatch.chdir(tmp_path)
    on_gpu(monkeypatch, 80)
    names = [line.partition(":")[0] for line in foreseen(model, "world.preset=large_gpu", only=["dpo"])]
    assert "dpo" in names and "reward model" not in names
    both = [*names, "reward model", "ppo"]
    assert sorted(
        line.partition(":")[0] for line in foreseen(model, "world.preset=large_gpu", only=["dpo", "ppo"])
    ) == (sorted(both))


def test_in_a_group_of_processes_no_vllm_is_counted(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each samples with its own loop there. (The preset named a kind of stage by its old name, and was refused.)"""
    monkeypatch.chdir(tmp_path)
    on_gpu(monkeypatch, 80, count=4, vllm=True)
    alone = next(line for line in foreseen(model, "world.preset=large_gpu") if line.startswith("ppo: "))
    group = next(line for line in foreseen(model, "world.preset=large_gpus") if line.startswith("ppo: "))
    assert "vLLM" in alone and "vLLM" not in group


def test_where_nothing_is_said_a_gpu_computes_in_16_bits(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was forecast in 32, with half as much again for what a pass keeps."""
    on_gpu(monkeypatch, 200)

    def lines(compute: str) -> list[str]:
        preset = ("world.preset=laptop", "world.train_layers=null", f"world.compute_dtype={compute}")
        return room.lines(described(model, *preset))

    assert lines("null") == lines("auto") != lines("float32")
