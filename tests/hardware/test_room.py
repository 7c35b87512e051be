"""Forecasts of memory: parameters from configs, activations against what a pass keeps, and what would help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farm.engines.llama import LlamaDecoder
from farm.hardware import machine, room
from farm.hardware.machine import There
from farm.hardware.models import save_causal_lm, tiny_llama
from farm.hardware.room import GIB, Work, needed, verdict
from farm.hardware.shapes import Shape, of_model, shape
from tests.policies.conftest import word_tokenizer

SEVEN = Shape(
    parameters=7_615_616_512,
    layer=233_057_792,
    adapted=28 * (4 * 3584 + 2 * 512 + 2 * 3584 + 3 * (3584 + 18944)),
    layers=28,
    width=3584,
    inner=18944,
    keys=1024,
    vocabulary=152_064,
)
"""of a model such as Qwen2.5-7B"""


def test_a_folders_config_tells_the_size_of_what_is_not_loaded(tmp_path: Path) -> None:
    model = tiny_llama(46, 16, 3, 4, 32, 64, 0, key_value_heads=2)
    save_causal_lm(model, word_tokenizer(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    found = shape(str(tmp_path))
    assert found == of_model(model)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert (found.layers, found.width, found.inner, found.keys) == (3, 16, 32, 2 * 2 * 4)
    assert shape(str(tmp_path / "nowhere")) is None


def test_the_size_of_what_is_no_transformer_is_not_known(tmp_path: Path) -> None:
    """It has no heads, which stopped a run before it began."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", **sizes}))
    assert shape(str(tmp_path)) is None


def test_adapters_have_as_many_parameters_as_peft_makes() -> None:
    adapters = pytest.importorskip("farm.hardware.adapters")
    model = tiny_llama(46, 16, 3, 4, 32, 64, 0)
    expected = of_model(model).adapted * 4
    adapters.add(model, rank=4, alpha=8.0, seed=0)
    assert sum(p.numel() for p in adapters.parameters(model)) == expected


def kept(model: torch.nn.Module, tokens: int) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights aside; what is kept twice counts once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False)
    return sum(seen.values())


@pytest.mark.parametrize("key_value_heads", [8, 2])
def test_activations_are_what_a_pass_keeps_to_a_quarter(key_value_heads: int) -> None:
    model = tiny_llama(46, 64, 4, 8, 192, 512, 0, key_value_heads=key_value_heads)
    work = Work(micro_batch_tokens=256)
    forecast = needed(of_model(model), work)["activations"]
    assert forecast == pytest.approx(kept(model, 256), rel=0.25)


def test_a_full_training_of_7b_in_float32_is_sixteen_bytes_a_parameter_and_what_does_not_train() -> None:
    found = needed(SEVEN, Work())
    assert found["weights"] == 2 * SEVEN.parameters * 4
    assert found["gradients and moments"] == SEVEN.parameters * 12
    halved = needed(SEVEN, Work(dtype="bfloat16"))
    assert halved["gradients and moments"] == SEVEN.parameters * 16  # the weights that take the updates are float32


def test_adapters_share_the_base_and_a_critic_has_its_own() -> None:
    lora = Work(tune="lora", dtype="bfloat16", frozen=2, trained=2)
    found = needed(SEVEN, lora)
    adapters = SEVEN.adapted * 16
    assert found["weights"] == 2 * SEVEN.parameters * 2 + 2 * adapters * 4
    assert found["gradients and moments"] == 2 * adapters * 12


def test_what_does_not_fit_is_told_with_the_mildest_setting_that_helps() -> None:
    full = verdict(SEVEN, Work(), 139 * GIB)
    assert not full.fits and full.remedy == "tune: lora" and full.then <= full.room
    assert "does not fit; with `tune: lora` it takes" in str(full)
    assert verdict(SEVEN, Work(tune="lora", dtype="bfloat16"), 139 * GIB).fits
    tight = Work(tune="lora", dtype="bfloat16", micro_batch_tokens=16384)
    assert verdict(SEVEN, tight, 139 * GIB).fits
    assert verdict(SEVEN, tight, 139 * GIB, engine=0.4, sleeps=False).remedy == "gradient_checkpointing: true"
    spread = verdict(SEVEN, Work(tune="full", dtype="bfloat16", frozen=1), 60 * GIB, devices=8)
    assert spread.remedy is not None
    none = verdict(SEVEN, Work(), 12 * GIB)
    assert none.remedy is None and "whatever is set" in str(none)


def test_an_engine_that_sleeps_shares_its_place_with_what_a_pass_keeps() -> None:
    work, memory = Work(tune="lora", dtype="bfloat16"), 80 * GIB
    alone = needed(SEVEN, work)
    kept, passing = alone["weights"] + alone["gradients and moments"], alone["activations"] + alone["logits"]
    assert verdict(SEVEN, work, memory, engine=0.4).total == pytest.approx(kept + max(passing, 0.4 * memory))
    assert verdict(SEVEN, work, memory, engine=0.4, sleeps=False).total == pytest.approx(kept + passing + 0.4 * memory)


def test_the_copy_that_a_llama_is_sampled_from_counts_where_it_is_more_than_a_pass_keeps() -> None:
    """Llama 3's 8B was said to train in 24 GB with adapters, and out of memory came with the first answers."""
    shape = Shape(8_030_261_248, 218_112_000, 2_621_440, 32, 4096, 14336, 2048, 128_256, 5_088_739_328, 7_504_658_432)
    without = replace(shape, joined=0, linear=0)
    work = Work(tune="lora", dtype="bfloat16", gradient_checkpointing=True)
    assert verdict(without, work, 24 * GIB).fits
    found = verdict(shape, work, 24 * GIB)
    assert not found.fits and "copy to sample from 12" in str(found)
    long = needed(shape, replace(work, gradient_checkpointing=False))
    assert long["copy to sample from"] == 0 < long["activations"] - 2 * shape.linear  # one is there before the other
    with_vllm = verdict(shape, work, 80 * GIB, engine=0.4)
    assert with_vllm.total == verdict(without, work, 80 * GIB, engine=0.4).total


@pytest.mark.parametrize(("tune", "dtype"), [("full", None), ("lora", None), ("full", torch.bfloat16)])
def test_what_the_lean_loop_copies_is_counted(tune: room.Tune, dtype: torch.dtype | None) -> None:
    """With adapters every weight is merged into another one, of which a third were forgotten."""
    model = tiny_llama(46, 16, 3, 4, 32, 64, 0, key_value_heads=2).double()  # which a processor stores as it is
    work = Work(tune=tune, computes_in_16_bits=dtype is not None, micro_batch_tokens=0, gradient_checkpointing=True)
    found = needed(of_model(model), work)["copy to sample from"]
    if tune == "lora":
        pytest.importorskip("farm.hardware.adapters").add(model, rank=2, alpha=4.0, seed=0)
    assert str(verdict(of_model(model), work, 9 * GIB)).endswith(" of 8 GiB")  # each part is too small to be named
    decoder = LlamaDecoder(model, torch.zeros(0, dtype=torch.int64), dtype)
    layers = [w for one in decoder.layers for w in (one.query_key_value, one.output, one.gate_up, one.down)]
    own = {p.data_ptr() for p in model.parameters()}
    copies = [w.numel() for w in [*layers, decoder.embedding, decoder.head] if w.data_ptr() not in own]
    assert found == sum(copies) * (4 if dtype is None else 2)


def test_every_remedy_takes_less_and_a_fitting_work_has_none() -> None:
    work = Work(trained=2, frozen=2)
    for setting, less in room.remedies(work, 4):
        assert sum(needed(SEVEN, less).values()) < sum(needed(SEVEN, work).values()), setting
    assert verdict(SEVEN, replace(work, tune="lora"), 1e15).remedy is None
    assert list(room.remedies(Work(trained=0), 4)) == []


@pytest.mark.parametrize(
    ("parameters", "kind", "gigabytes", "count", "expected"),
    [
        (135e6, "cpu", 24, 1, "laptop"),
        (7e9, "cpu", 64, 1, "laptop"),
        (135e6, "cuda", 80, 1, "laptop"),
        (1.2e9, "cuda", 12, 1, "consumer_gpu"),
        (7e9, "cuda", 24, 1, "consumer_gpu"),
        (7e9, "cuda", 80, 1, "large_gpu"),
        (7e9, "cuda", 80, 2, "large_gpu"),  # the stages of the other take four GPUs
        (8e9, "cuda", 139, 4, "large_gpus"),
    ],
)
def test_a_preset_for_each_size_and_device(
    parameters: float, kind: str, gigabytes: float, count: int, expected: str
) -> None:
    from farm.experiments.room import preset

    assert preset(parameters, There(kind, "it", gigabytes * GIB), count) == expected  # type: ignore[arg-type]


def test_a_container_has_the_memory_it_was_given() -> None:
    assert 0 < machine.PROCESSOR.memory < 2**50
