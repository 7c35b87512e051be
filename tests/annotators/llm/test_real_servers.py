"""The recipes against the programs themselves, where they can be installed: what arrives, and what is read of it.

llama.cpp's server is part of the tests (package xllamacpp); vLLM's runs with ``make test-vllm``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.llm import prompt
from farm.tables.formats import read_annotations, write_table
from tests import real_servers, started, tiny_judge

Served = Callable[..., AbstractContextManager[str]]
TEXTS = ["An apple.", "There is a lot of fruit, and all of it is healthy.", "No.", "One. Two. Three.", "1, 2, 3!"]


def of_llama_cpp(folder: Path, context: int = 8192) -> AbstractContextManager[str]:
    return real_servers.llama_cpp(tiny_judge.save_gguf(folder / "judge.gguf"), folder / "server.log", context)


def of_vllm(folder: Path, context: int = 8192) -> AbstractContextManager[str]:
    pytest.importorskip("vllm")
    model = tiny_judge.save(folder / "judge")
    return real_servers.vllm(model, model, "tiny", folder / "server.log", "--max-model-len", str(context))


@pytest.mark.parametrize(
    ("recipe", "served"),
    [
        ("llama_cpp", of_llama_cpp),
        pytest.param("vllm", of_vllm, marks=[pytest.mark.vllm, pytest.mark.timeout(1500)]),
    ],
)
def test_a_recipe_against_the_program(recipe: str, served: Served, tmp_path: Path) -> None:
    """Probabilities are the model's; thinking is off, and said where it is not; what is too long is one row's error."""
    rows = [{"instruction": f"Say {a}", "output_1": a, "output_2": b} for a, b in pairwise(TEXTS)]
    pairs = tmp_path / "pairs.json"
    write_table(pd.DataFrame([*rows, {**rows[0], "instruction": "Say it all. " * 200}]), pairs)
    environment = {**os.environ, "FARM_HOME": str(tmp_path / "home")}

    def annotate(url: str, out: str, *options: str) -> tuple[pd.DataFrame, str]:
        words = ["annotate", pairs, "--annotators", recipe, "--out", tmp_path / out, "--set", f"base_url={url}"]
        done = started.run(*words, "--set", "model=openai/tiny", *options, cwd=tmp_path, env=environment)
        assert done.returncode == (1 if options else 0), done.stderr
        return read_annotations(tmp_path / out), done.stderr

    with served(tmp_path, 2048) as url:
        table, said = annotate(url, "verdicts.json")
        assert table["status"].tolist() == ["ok"] * len(rows) + ["error"]
        assert "status 400" in table["failure"].iloc[-1] and "context" in table["failure"].iloc[-1]
        assert "verdicts are read from the text" not in said and "switch it off" not in said
        judged = table[:-1]
        expected = [first_is_preferred(row) for row in judged.to_dict("records")]
        assert np.ptp(expected) > 0.1  # another answer for another pair
        np.testing.assert_allclose(judged["p_first"], expected, atol=0.02)  # llama.cpp keeps keys in 16 bits
        assert (judged["label_mass"] > 0.9).all() and (judged["model"] != "").all()
        thought, said = annotate(url, "thoughts.json", "--set", "extra=null")
        assert (thought["status"][:-1] == "unparseable").all() and said.count("switch it off") == 1


def first_is_preferred(row: dict[str, Any]) -> float:
    """P(output_1) of the model itself, by transformers, on the prompt that the recipe's template makes."""
    swapped = row["shown_first"] == 2
    shown = (row["output_2"], row["output_1"]) if swapped else (row["output_1"], row["output_2"])
    system, user = prompt.load("plain").render([prompt.Item(row["instruction"], shown)], "", ())
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    words = tiny_judge.tokenizer()
    text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    tokens = torch.tensor([words(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        logits = tiny_judge.model()(tokens).logits[0, -1]
    first = float(torch.softmax(logits[words.convert_tokens_to_ids(["1", "2"])], 0)[0])
    return 1 - first if swapped else first
