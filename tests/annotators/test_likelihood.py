"""The likelihood annotator: its numbers are the model's, each text is read once, and a real small model can judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

pytest.importorskip("transformers")
import torch

from annotators.people import likelihood as module
from annotators.people.likelihood import Likelihood, LikelihoodAnnotator
from farm.asking.givers import description
from farm.base.errors import UserError
from farm.hardware.models import load_causal_lm, save_causal_lm, tiny_llama
from farm.storage.store import Store

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghij"]


def save_tiny(folder: Path, seed: int) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    model = tiny_llama(len(WORDS), 16, 2, 2, 32, 64, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6.0 if weight.dim() == 2 else 1.0)  # far from uniform
    save_causal_lm(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), seed=1)


def by_hand(folder: Path, instruction: str, output: str) -> tuple[float, int]:
    """log p(output | instruction) from the model's logits, the end of sequence included."""
    model, tokenizer = load_causal_lm(str(folder))
    before = tokenizer(f"### Instruction:\n{instruction}\n\n### Response:\n", add_special_tokens=False).input_ids
    after = [*tokenizer(output, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = torch.log_softmax(model(torch.tensor([before + after])).logits[0].double(), dim=-1)
    places = range(len(before) - 1, len(before) + len(after) - 1)
    return float(sum(log_p[i, t] for i, t in zip(places, after, strict=True))), len(after)


def test_a_text_cannot_end_itself(folder: Path) -> None:
    """The end of sequence spelt out in an output is letters, which are read like the rest."""
    nats, tokens = Likelihood(str(folder))(["a", "a"], ["d <eos> e", "d < eos> e"])
    assert tokens.tolist() == [5, 5]
    assert nats[0] == nats[1]


def test_scores_are_the_models(folder: Path) -> None:
    pairs = pd.DataFrame({"instruction": ["a b", "c"], "output_1": ["d e f", "g"], "output_2": ["h", "i j a b"]})
    for score in ("pmi", "mean"):
        table = LikelihoodAnnotator(str(folder), score=score, temperature=1.0).annotate(pairs, seed=0)
        for row, p_first in zip(pairs.itertuples(), table["p_first"], strict=True):
            utilities = []
            for output in (row.output_1, row.output_2):
                given, tokens = by_hand(folder, row.instruction, output)
                utilities.append(given - by_hand(folder, "", output)[0] if score == "pmi" else given / tokens)
            assert logit(p_first) == pytest.approx(utilities[0] - utilities[1], abs=1e-4)


def test_the_batch_changes_nothing(folder: Path) -> None:
    generator = np.random.Generator(np.random.Philox(1))
    texts = [" ".join(generator.choice(list("abcdefghij"), n)) for n in range(1, 12)]
    whole = Likelihood(str(folder))(["a"] * 11, texts)
    single = [Likelihood(str(folder))(["a"], [text]) for text in texts]
    np.testing.assert_array_equal(whole[0], [nats[0] for nats, _ in single])
    np.testing.assert_array_equal(whole[1], np.arange(2, 13))


def test_only_the_first_tokens_are_read(folder: Path) -> None:
    short = Likelihood(str(folder), response_tokens=2)(["a", "a"], ["b c", "b c d e"])
    assert short[0][0] == short[0][1] and short[1].tolist() == [2, 2]


def test_each_text_is_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store.sqlite")
    pairs = pd.DataFrame({"instruction": "a", "output_1": ["b", "c", "b"], "output_2": ["c", "b", "d"]})
    annotator = LikelihoodAnnotator(str(folder), store=store)
    first = annotator.annotate(pairs, seed=0)
    assert store.totals().set_index("kind")["rows"].to_dict() == {"likelihood": 6}  # b, c, d after "a" and after ""

    def forbidden(*_: Any) -> None:
        raise AssertionError("a text was read again")

    monkeypatch.setattr(module.Likelihood, "_read", forbidden)
    again = LikelihoodAnnotator(str(folder), store=store).annotate(pairs, seed=0)
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_other_weights_under_the_same_name_are_another_model(folder: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=2)
    one, two = LikelihoodAnnotator(str(folder)), LikelihoodAnnotator(str(other))
    assert one.likelihood.fingerprint != two.likelihood.fingerprint
    assert description(one) != description(two)
    assert description(one) == description(LikelihoodAnnotator(str(folder)))
    assert description(one) != description(LikelihoodAnnotator(str(folder), score="mean"))


def test_texts_that_were_read_need_no_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address has the revision of the model's files, so a cached run loads nothing; changed files read anew."""
    import annotators.people.likelihood as module

    store = Store(tmp_path / "kept.sqlite")
    pairs = pd.DataFrame({"instruction": ["a"], "output_1": ["b c"], "output_2": ["d"]})
    LikelihoodAnnotator(str(folder), store=store).annotate(pairs, seed=0)
    monkeypatch.setattr(module, "_policy", lambda *_: 1 / 0)
    LikelihoodAnnotator(str(folder), store=store).annotate(pairs, seed=0)
    other = save_tiny(tmp_path / "changed", seed=3)
    with pytest.raises(ZeroDivisionError):
        LikelihoodAnnotator(str(other), store=store).annotate(pairs, seed=0)


def test_biases_come_on_top(folder: Path, features_of: Any) -> None:
    pairs = pd.DataFrame({"instruction": "a", "output_1": ["1"], "output_2": ["2"]})  # the same unknown word twice
    plain = LikelihoodAnnotator(str(folder)).annotate(pairs, seed=0)["p_first"][0]
    assert plain == pytest.approx(0.5)
    assert logit(LikelihoodAnnotator(str(folder), position_bias=1.0).annotate(pairs, seed=0)["p_first"][0]) == 1.0
    features = features_of(length=[0.0, 20.0, 5.0])
    biased = LikelihoodAnnotator(str(folder), length_bias=2.0, features=features).annotate(pairs, seed=0)
    assert logit(biased["p_first"][0]) == pytest.approx(2 * np.tanh(1.0))
    with pytest.raises(UserError, match="`length`"):
        LikelihoodAnnotator(str(folder), length_bias=2.0).annotate(pairs, seed=0)


@pytest.mark.slow
def test_smollm2_tells_answers_from_nonsense(shared_data: Any) -> None:
    """Off-topic answers and shuffled words lose nine times in ten or more."""
    try:
        load_causal_lm("HuggingFaceTB/SmolLM2-135M-Instruct")
    except UserError as absent:
        pytest.skip(str(absent))
    questions = pd.read_parquet(shared_data("alpaca_eval/instructions.parquet"))
    answers = pd.read_parquet(shared_data("alpaca_eval/outputs.parquet"))
    answers = answers[(answers["generator"] == "text_davinci_003") & answers["output_len"].between(100, 500)]
    table = answers.merge(questions, on="instruction_id").sample(30, random_state=0).reset_index(drop=True)
    generator = np.random.Generator(np.random.Philox(1))
    shuffled = [" ".join(generator.permutation(text.split())) for text in table["output"]]
    for others in (np.roll(table["output"].to_numpy(dtype=object), 7), shuffled):
        pairs = pd.DataFrame({"instruction": table["instruction"], "output_1": table["output"], "output_2": others})
        judge = LikelihoodAnnotator(greedy=True, response_tokens=64)
        assert (judge.annotate(pairs, seed=0)["preference"] == 1).mean() >= 0.9
