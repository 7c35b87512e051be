"""What a run runs on and what of it fits there, from its written settings alone: said before anything is loaded, at the
start of a run, and in its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from farm.base.errors import UserError
from farm.engines.auto import choice
from farm.hardware import machine, room
from farm.hardware.shapes import Shape, shape
from farm.roles.classes import import_class
from farm.roles.protocols import World


def lines(description: Mapping[str, Any], trained: Mapping[str, int] | None = None) -> list[str]:
    """Sentences, the device first; with the model's memory where the world names a ``model``.

    Args:
        description: the experiment with every default written out; of a paper, or of one that computes its tables,
            neither of which has a world, the device alone is said.
        trained: the label of each stage that trains -> in how many processes; where None, all that could train, each
            in one.
    """
    world = description.get("world")
    if not isinstance(world, Mapping) or "class" not in world:
        return [f"runs on {machine.in_words(machine.device())}"]
    stays = world.get("device") or _of_class(str(world["class"]))
    there = machine.device()
    here = there if stays != "cpu" else machine.PROCESSOR
    why = ", where models as small as this world's are faster" if stays == "cpu" and there.kind == "cuda" else ""
    out = [f"runs on {machine.in_words(here)}{why}"]
    model = world.get("model")
    if not isinstance(model, str):
        return out
    if here.kind == "cuda" and world.get("compute_dtype") is None:  # as farm.policies.body decides it there
        world = {**world, "compute_dtype": "auto"}
    size = shape(model)
    if size is None:
        return [*out, f"how much memory {model} takes is not known, as its config is not here or no transformer's"]
    out.append(f"{model} has {_count(size.parameters)} parameters; the memory that each training takes, forecast:")
    engine = _engine_share(world, here.kind)
    if engine:
        out.append(_engine(size, world, engine, here.memory))
    sleeps = (world.get("engine") or {}).get("sleep", True)
    for name, spec, reward_model in _trainings(description):
        if trained is not None and name not in trained:
            continue
        group = 1 if trained is None else trained[name]
        work = room.of_spec(spec, world, reward_model)
        if spec.get("shard"):
            work = replace(work, devices=group)
        beside = engine if group == 1 else 0.0  # in a group each process samples with its own loop
        out.append(f"{name}: {room.verdict(size, work, here.memory, beside, machine.count(), sleeps)}")
    return out


def recommended(description: Mapping[str, Any]) -> str | None:
    """The preset for a model of this size on this device; None where the world names no model."""
    world = description.get("world")
    model = world.get("model") if isinstance(world, Mapping) else None
    size = shape(model) if isinstance(model, str) else None
    if size is None:
        return None
    return preset(size.parameters, machine.device(), machine.count())


def preset(parameters: int, device: machine.There, devices: int) -> str:
    """Which of the four sizes suits a model on a device: see configs/presets."""
    if device.kind == "cpu" or parameters < 4e8:
        return "laptop"
    if parameters < 3e9 or device.memory < 40 * room.GIB:
        return "consumer_gpu"
    return "large_gpu" if devices < 4 else "large_gpus"  # whose stages take four


def _of_class(path: str) -> str | None:
    """Where a world's class says that its models stay."""
    try:
        return getattr(import_class(path, World, path), "device", None)
    except UserError:  # a file beside an experiment that is not here
        return None


def _trainings(description: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """The stage's label, its settings, and whether a reward model is in memory besides."""
    for name, spec in {"sft": description.get("sft"), **(description.get("models") or {})}.items():
        if isinstance(spec, Mapping):
            yield name.replace("_", " "), spec, False
    for name, spec in (description.get("methods") or {}).items():
        yield name, spec, bool({"rollouts", "n"} & set(spec))  # those that sample score what they sampled


def _engine_share(world: Mapping[str, Any], kind: str) -> float:
    """The share of the device's memory that a sampling engine takes beside the trainer."""
    engine = world.get("engine") or {}
    name = str(engine.get("class", "farm.engines.auto.Auto")).rpartition(".")[2]
    taken = name == "VLLM" or (name == "Auto" and choice(kind)[0] == "vllm")
    return float(engine.get("memory", 0.4)) if taken and kind == "cuda" else 0.0


def _engine(size: Shape, world: Mapping[str, Any], share: float, memory: float) -> str:
    work = room.of_spec({}, world, reward_model=False)
    cache = room.needed(size, work)["cache"]
    weights = size.parameters * (2 if work.computes_in_16_bits else room.BYTES.get(work.dtype, 4))
    said = f"vLLM takes {room.gib(share * memory)} GiB (weights {room.gib(weights)}, the rest keys and values)"
    if weights + cache / room.TOGETHER > share * memory:
        return f"{said}, which is too little for it; raise `world.engine.memory`"
    return said


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
