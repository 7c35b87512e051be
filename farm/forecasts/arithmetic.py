"""GPU time of stages that nothing is on record about, by the model's arithmetic.

6 N operations a token in training, 2 N in scoring and sampling, at the share of a device's peak that each reaches. The
shares are assumptions, and so is the peak: `benchmarks/train_gpu.py` measures a device. How many texts a stage goes
through, it says itself (:class:`farm.experiments.stages.stage.Size`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from farm.roles.work import Texts

PEAK = 400e12
"""operations a second that one device's matrix products reach"""
TRAINING, SCORING, SAMPLING = 0.4, 0.4, 0.1
PROMPT = 64
"""tokens"""


def seconds(model: str, texts: Texts | None, response: object) -> float | None:
    """Seconds of one GPU for what a model goes through, with so many tokens a response at most; None where the model's
    size or the work is not known."""
    size = parameters(model)
    if size is None or texts is None or not isinstance(response, int):
        return None
    trained, read, written = tokens(texts, response)
    return size * (6 * trained / TRAINING + 2 * read / SCORING + 2 * written / SAMPLING) / PEAK


def tokens(texts: Texts, response: float, prompt: float = PROMPT) -> tuple[float, float, float]:
    """Tokens trained on, read and written, of which prompts and responses have so many each."""
    whole = prompt + response
    return texts.trained * whole, texts.read * whole, texts.written * response


def parameters(model: str) -> float | None:
    """How many the model has: of a folder from its config, else as its name says.

    >>> parameters("huggyllama/llama-7b"), parameters("HuggingFaceTB/SmolLM2-135M-Instruct"), parameters("gpt2")
    (7000000000.0, 135000000.0, None)
    """
    if (file := Path(model) / "config.json").is_file():
        config = json.loads(file.read_text())
        try:
            width, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
            shared = config.get("num_key_value_heads", config["num_attention_heads"]) / config["num_attention_heads"]
            return float(layers * width * ((2 + 2 * shared) * width + 3 * inner) + config["vocab_size"] * width)
        except KeyError:
            return None
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model.lower())
    return None if found is None else float(found[1]) * (1e9 if found[2] == "b" else 1e6)
