"""What a training takes of a device's memory, by arithmetic, before anything is loaded.

    weights       every network's: policy and critic, which train, the SFT policy and the reward model, which do not.
                  With adapters, or the last layers alone, those that train share the weights of those that do not
    moments       of what trains, in float32: gradient 4, Adam's two moments 8 bytes a parameter, and 4 for a copy of
                  weights that are stored in 16 bits
    activations   of one micro-batch, kept for the backward pass
    logits        of the tokens that are worked on at once
    cache         keys and values of the responses that are sampled together
    copy          of a Llama's weights, from which the policy's own loop samples: what it has more than a pass keeps,
                  which is not there then

The activations are counted from a Llama's layer (what its operations keep, in units of the two widths); other families
differ by some tens of per cent, and a processor's or a GPU's allocator adds its own. A forecast, not a promise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from farm.hardware.shapes import Shape

GIB = 2**30
SPARE = 0.9
"""the share of a device's memory that a run may fill"""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2}
LOGITS = 2**26
"""logits that are kept at once (farm.policies.likelihoods)"""
TOGETHER = 64
"""responses that are sampled at once, at least, for sampling to be worth a device"""

OF_A_PASS = {"activations", "logits"}
OF_OWN_LOOP = {"cache", "copy to sample from"}
"""parts of what is needed that are there for a time"""

Tune = Literal["full", "lora", "last_layers"]


@dataclass(frozen=True)
class Work:
    """What is done with a model, in the words of the settings."""

    trained: int = 1
    """networks that train: the policy, and a critic"""
    frozen: int = 1
    """networks that do not: the SFT policy, a reward model"""
    dtype: str = "float32"
    """of the weights as they are loaded"""
    computes_in_16_bits: bool = False
    tune: Tune = "full"
    lora_rank: int = 16
    last_layers: int = 8
    gradient_checkpointing: bool = False
    micro_batch_tokens: int = 4096
    tokens: int = 320
    """of a prompt and its response, at most"""
    devices: int = 1
    """over which what trains is spread (``shard``)"""


def needed(shape: Shape, work: Work) -> dict[str, float]:
    """Bytes on one device, by what they are for."""
    each = BYTES.get(work.dtype, 4)
    whole = work.tune == "full"
    count = {
        "full": shape.parameters,
        "lora": shape.adapted * work.lora_rank,
        "last_layers": min(work.last_layers, shape.layers) * shape.layer,
    }[work.tune]
    trained = work.trained * count / work.devices
    own = 4 if work.tune == "lora" else each  # adapters are float32
    weights = work.frozen * shape.parameters * each + trained * own
    copies = trained * 4 if each < 4 and work.tune != "lora" else 0.0
    in_16 = each < 4 or work.computes_in_16_bits
    found = {
        "weights": weights,
        "gradients and moments": trained * 12 + copies,
        "activations": _activations(shape, work, in_16) if work.trained else 0.0,
        "logits": min(work.micro_batch_tokens * shape.vocabulary, LOGITS) * (6 if in_16 else 4),
        "cache": TOGETHER * work.tokens * shape.layers * shape.keys * (2 if in_16 else 4),
    }
    if whole and work.computes_in_16_bits and each == 4 and not work.gradient_checkpointing:
        found["activations"] += 2 * shape.parameters / work.devices  # copies of the weights for the matrix products
    turned = in_16 and each == 4  # then what is not joined is copied, too
    copied = shape.linear if turned or work.tune == "lora" else shape.joined
    if turned and copied:
        copied += shape.vocabulary * shape.width
    found["copy to sample from"] = max(0.0, copied * (2 if in_16 else 4) - found["activations"] - found["logits"])
    return found


def _activations(shape: Shape, work: Work, in_16: bool) -> float:
    """A layer keeps its norms' inputs (float32 whatever is computed in), what enters its matrix products, queries and
    keys before and after they are turned, and the two halves of the feed-forward part with their product."""
    unit = 2 if in_16 else 4
    layer = shape.width * (8 + 8 * unit) + shape.keys * 2 * unit + shape.inner * 4 * unit
    # Only the last layers keep anything where the others are frozen; adapters need the gradient all the way down.
    deep = min(work.last_layers, shape.layers) if work.tune == "last_layers" else shape.layers
    if work.gradient_checkpointing:
        return work.micro_batch_tokens * (deep * shape.width * unit + layer)
    return work.micro_batch_tokens * deep * layer


def remedies(work: Work, devices: int) -> Iterator[tuple[str, Work]]:
    """Settings that take less, the mildest first, with what is done then."""
    if not work.trained:
        return
    yield "gradient_checkpointing: true", replace(work, gradient_checkpointing=True)
    yield "tune: lora", replace(work, tune="lora")
    yield "tune: lora, gradient_checkpointing: true", replace(work, tune="lora", gradient_checkpointing=True)
    for count in range(2, devices + 1):
        spread = replace(work, devices=count, gradient_checkpointing=True)
        yield f"shard: true, gradient_checkpointing: true, resources gpus: {count}", spread
    least = replace(work, tune="lora", gradient_checkpointing=True, micro_batch_tokens=1024, dtype="bfloat16")
    yield (
        "tune: lora, gradient_checkpointing: true, micro_batch_tokens: 1024, and world.dtype: bfloat16",
        least,
    )


@dataclass(frozen=True)
class Verdict:
    """Whether a piece of work fits a device."""

    parts: Mapping[str, float]
    """bytes"""
    room: float
    """bytes that may be filled"""
    remedy: str | None = None
    """the mildest settings with which it fits; None where it fits, or no setting helps"""
    then: float = 0.0
    """bytes with the remedy"""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.room

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.parts.items() if size >= GIB / 20)
        said = f"{gib(self.total)} of {gib(self.room)} GiB" + (f" ({parts})" if parts else "")
        if self.fits:
            return said
        if self.remedy is None:
            return f"{said}: does not fit, whatever is set; take a smaller model or a larger device"
        return f"{said}: does not fit; with `{self.remedy}` it takes {gib(self.then)} GiB"


def gib(size: float) -> str:
    """
    >>> gib(3 * 2**30), gib(2**28)
    ('3', '0.2')
    """
    return f"{size / GIB:.0f}" if size >= 2.95 * GIB else f"{size / GIB:.1f}"


def beside(parts: Mapping[str, float], engine: float, sleeps: bool) -> dict[str, float]:
    """The same where an ``engine`` that takes so many bytes samples in place of the policy's own loop: where it
    ``sleeps`` in training, what a pass keeps can be in them."""
    if not engine:
        return dict(parts)
    kept = {name: size for name, size in parts.items() if name not in OF_OWN_LOOP | OF_A_PASS}
    passing = parts["activations"] + parts["logits"]
    if sleeps:
        return {**kept, "activations or vLLM": max(passing, engine)}
    return {**kept, "activations": passing, "vLLM": engine}


def verdict(
    shape: Shape, work: Work, memory: float, engine: float = 0.0, devices: int = 1, sleeps: bool = True
) -> Verdict:
    """Whether ``work`` fits a device of ``memory`` bytes, of which a sampling ``engine`` takes a share. If not, what
    makes it fit where there are so many ``devices``."""
    room = memory * SPARE
    found = Verdict(beside(needed(shape, work), engine * memory, sleeps), room)
    if found.fits:
        return found
    for setting, less in remedies(work, devices):
        total = sum(beside(needed(shape, less), engine * memory, sleeps).values())
        if total <= room:
            return replace(found, remedy=setting, then=total)
    return found


def of_spec(spec: Mapping[str, Any], world: Mapping[str, Any], reward_model: bool) -> Work:
    """What a method's or a model's settings, written out, do with the world's model."""
    layers = world.get("train_layers")
    tune: Tune = spec.get("tune") or ("full" if layers is None else "last_layers")
    trains = "learning_rate" in spec
    critic, tokens = "value_learning_rate" in spec, spec.get("micro_batch_tokens")
    return Work(
        trained=int(trains) + int(critic),
        frozen=1 + int(reward_model),
        dtype=str(world.get("dtype", "float32")),
        computes_in_16_bits=world.get("compute_dtype") in ("auto", "bfloat16", "float16"),
        tune=tune,
        lora_rank=spec.get("lora_rank", 16),
        last_layers=spec.get("last_layers", 8) if spec.get("tune") else layers or 8,
        gradient_checkpointing=bool(spec.get("gradient_checkpointing")),
        micro_batch_tokens=tokens if isinstance(tokens, int) else 4096,  # `auto` takes what is free
        tokens=256 + int(world.get("max_new_tokens") or 128),
    )
