"""A small model in this process: alone or together, with probabilities, greedy or seeded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends.transformers_model import TransformersModel
from annotators.llm.backends.vllm_model import VLLMModel
from annotators.llm.completion import Completion, Request
from farm.base.errors import UserError
from farm.hardware.models import tiny_llama
from farm.storage.store import Store
from tests.annotators.llm.cases import make_pairs

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<bot>", "1", "2", *(f"w{i}" for i in range(40))]
CHAT = "<bos>{% for m in messages %} <user> {{ m.content }}{% endfor %}{% if add_generation_prompt %} <bot> {% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", bos_token="<bos>", pad_token="<pad>"
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    model = tiny_llama(len(WORDS), 16, 2, 2, 32, 128, 0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6.0)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[TransformersModel]:
    yield TransformersModel(str(folder))


def ask(model: TransformersModel, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return list(await asyncio.gather(*(model.complete(r) for r in requests)))

    return asyncio.run(together())


def request(text: str, **settings: object) -> Request:
    return Request("m", user=text, **{"system": "", "max_tokens": 6, "temperature": 0.0, **settings})  # type: ignore[arg-type]


TEXTS = ["w1 w2", "w3", "w4 w5 w6 w7 w8 w9", "w10 w11 w12"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_who_else_is_asked(model: TransformersModel, temperature: float) -> None:
    requests = [request(t, temperature=temperature, labels=("1", "2")) for t in TEXTS]
    alone = [ask(model, r)[0] for r in requests]
    for one, other in zip(alone, ask(model, *requests), strict=True):
        assert one.text == other.text
        assert one.labels is not None and other.labels is not None
        assert one.labels == pytest.approx(other.labels, abs=0.05)  # bfloat16 rounds differently in another batch
        assert (one.input_tokens, one.output_tokens, one.finish) == (
            other.input_tokens, other.output_tokens, other.finish,
        )  # fmt: skip


def test_labels_are_log_probabilities_of_the_first_token(model: TransformersModel) -> None:
    said = ask(model, request("w1 w2", labels=tuple(WORDS)))[0]
    assert said.labels is not None
    assert torch.tensor(list(said.labels.values())).exp().sum().item() == pytest.approx(1.0, abs=1e-3)
    assert said.mass == pytest.approx(1.0, abs=1e-3)
    likeliest = max(said.labels.items(), key=lambda entry: entry[1])[0]
    assert said.text.split()[:1] == ([] if likeliest in ("<eos>", "<pad>", "<bos>", "<unk>") else [likeliest])


def test_seeds_and_replicates_draw_anew_and_repeat(model: TransformersModel) -> None:
    base = {"temperature": 1.0, "max_tokens": 12}
    one = ask(model, request("w1", **base))[0].text
    assert ask(model, request("w1", **base))[0].text == one
    others = {ask(model, request("w1", replicate=k, **base))[0].text for k in range(1, 6)}
    assert len(others | {one}) > 3


def test_what_is_judged_cannot_end_a_turn(model: TransformersModel) -> None:
    """``<eos>`` in a text is those letters; the template's own tokens stay what they are."""
    asked = model._ids(request("w1 <eos> w2 <bos>", system="w3 <eos>"))
    assert WORDS.index("<eos>") not in asked
    assert asked.count(WORDS.index("<bos>")) == 1
    assert asked == model._ids(request("w1 < eos> w2 < bos>", system="w3 < eos>"))


def test_vllm_is_told_the_same(model: TransformersModel) -> None:
    seen: list[object] = []
    engine = VLLMModel.__new__(VLLMModel)
    engine._vllm = SimpleNamespace(SamplingParams=dict)
    engine._engine = SimpleNamespace(
        get_tokenizer=lambda: model._tokenizer, chat=lambda turns, *_, **__: seen.extend(turns) or []
    )
    engine._answer([])
    with pytest.raises(ValueError, match="zip"):
        engine._answer([request("w1 <eos>", system="w3")])
    assert seen == [[{"role": "system", "content": "w3"}, {"role": "user", "content": "w1 < eos>"}]]


def test_the_limit_of_tokens(model: TransformersModel) -> None:
    said = ask(model, *(request(t, max_tokens=k + 1, temperature=1.0) for k, t in enumerate(TEXTS)))
    assert all(s.output_tokens <= k + 1 for k, s in enumerate(said))
    cut = [s.finish == "length" for s in said]
    assert any(cut) and all(s.output_tokens == k + 1 for k, s in enumerate(said) if cut[k])
    long = ask(model, *(request(TEXTS[0], max_tokens=80, temperature=1.0, replicate=k) for k in range(4)))
    assert any(s.finish == "stop" for s in long)
    assert all(s.output_tokens == 80 for s in long if s.finish == "length")


def test_as_a_judge(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model says anything but a label, and is a judge when nothing else is left to say."""
    pairs = make_pairs(5)
    untrained = LLMAnnotator(f"transformers/{folder}", "plain", store=store).annotate(pairs, seed=0)
    assert (untrained["label_mass"] < 0.5).all() and (untrained["status"] == "unparseable").all()
    likelihoods = torch.log_softmax

    def only_labels(scores: torch.Tensor, dim: int) -> torch.Tensor:
        allowed = torch.full_like(scores, -torch.inf)
        allowed[..., [WORDS.index("1"), WORDS.index("2")]] = 0.0
        return likelihoods(scores + allowed, dim)

    monkeypatch.setattr(torch, "log_softmax", only_labels)
    table = LLMAnnotator(f"transformers/{folder}", "plain", store=store).annotate(pairs, seed=1)
    assert (table["status"] == "ok").all()
    assert table["label_mass"].to_numpy() == pytest.approx(1.0)
    assert table["p_first"].between(0, 1).all()
    assert (table["price"] == 0).all()


def test_a_model_that_is_not_there_is_said_in_one_sentence(store: Store) -> None:
    with pytest.raises(UserError, match="no-such"):
        LLMAnnotator("transformers/nobody/no-such-model", store=store).annotate(make_pairs(1), seed=0)
    with pytest.raises(UserError, match="vllm"):
        LLMAnnotator("vllm/nobody/no-such-model", store=store).annotate(make_pairs(1), seed=0)
