"""GPU time of stages that nothing is on record about, by the model's arithmetic.

6 N operations a token in training, 2 N in scoring and sampling, at the share of a device's peak that each reaches. The
shares are assumptions, and so is the peak: `benchmarks/train_gpu.py` measures a device. What a method does is read from
its settings (``steps`` and ``rollouts`` of online methods, ``epochs`` of others, ``n`` of best-of-n); one that has none
of these has no estimate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.graph import Node
from farm.plan import SFT, Plan

PEAK = 400e12
"""operations a second that one device's matrix products reach"""
TRAINING, SCORING, SAMPLING = 0.4, 0.4, 0.1
PROMPT = 64
"""tokens"""


def seconds(plan: Plan, node: Node) -> float | None:
    """Seconds of one GPU for a stage; None where the size of the model or the work of the method is not known."""
    size = parameters(str(plan.description["world"].get("model", "")))
    response = plan.description["world"].get("max_new_tokens")
    if size is None or not isinstance(response, int):
        return None
    trained, read, written = tokens(plan, node, response) or (None, 0.0, 0.0)
    if trained is None:
        return None
    return size * (6 * trained / TRAINING + 2 * read / SCORING + 2 * written / SAMPLING) / PEAK


def parameters(model: str) -> float | None:
    """How many the model has: of a folder from its config, else as its name says.

    >>> parameters("huggyllama/llama-7b"), parameters("HuggingFaceTB/SmolLM2-135M-Instruct"), parameters("gpt2")
    (7000000000.0, 135000000.0, None)
    """
    if (file := Path(model) / "config.json").is_file():
        told = json.loads(file.read_text())
        try:
            width, layers, inner = told["hidden_size"], told["num_hidden_layers"], told["intermediate_size"]
            shared = told.get("num_key_value_heads", told["num_attention_heads"]) / told["num_attention_heads"]
            return float(layers * width * ((2 + 2 * shared) * width + 3 * inner) + told["vocab_size"] * width)
        except KeyError:
            return None
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model.lower())
    return None if found is None else float(found[1]) * (1e9 if found[2] == "b" else 1e6)


def tokens(plan: Plan, node: Node, response: float, prompt: float = PROMPT) -> tuple[float, float, float] | None:
    """Tokens trained on, read and written by a stage, of which prompts and responses have so many each."""
    sizes, described = plan.experiment.sizes, plan.description
    whole = prompt + response
    if node.kind == "sft":
        return _epochs(described["sft"]) * sizes.demonstrations * whole, 0, 0
    if node.kind == "pairs":
        return 0, 0, 2 * sizes.pairs * response
    if node.kind in ("reward model", "preference model"):
        return _epochs(described[node.kind.replace(" ", "_")]) * 2 * sizes.pairs * whole, 0, 0
    if node.kind == "answers":
        name = node.name.removesuffix(" answers")
        spec = {} if name == SFT else described["methods"][name]
        choices = int(spec.get("n") or 1) if "epochs" not in spec else 1  # best-of-n chooses when it answers
        n = sizes.evaluation * sizes.samples
        return 0, n * whole * (choices + 2), n * choices * response * (2 if name == SFT else 1)
    if node.kind == "method" and node.method is not None:
        return _of_method(described["methods"][node.method], plan, node.method, response, whole)
    return None


def _of_method(
    spec: Mapping[str, Any], plan: Plan, name: str, response: float, whole: float
) -> tuple[float, float, float] | None:
    sizes = plan.experiment.sizes
    if isinstance(steps := spec.get("steps"), int) and isinstance(rollouts := spec.get("rollouts"), int):
        n = steps * rollouts  # each is written, read by the reward model and the reference, and learned from
        return _epochs(spec) * n * whole, 2 * n * whole, n * response
    if "epochs" in spec and "preferences" in plan.stages.method(name).needs:
        n = 2 * sizes.pairs  # both sides, and the reference's log-probabilities once
        return _epochs(spec) * n * whole, n * whole, 0
    if isinstance(best := spec.get("n"), int) and "epochs" in spec:  # expert iteration: the best of n, then SFT on it
        drawn = sizes.prompts * best
        return _epochs(spec) * sizes.prompts * whole, drawn * whole, drawn * response
    return (0, 0, 0) if isinstance(spec.get("n"), int) else None  # best-of-n trains nothing


def _epochs(spec: Mapping[str, Any] | None) -> float:
    found = (spec or {}).get("epochs", 1)
    return float(found) if isinstance(found, (int, float)) else 1.0
