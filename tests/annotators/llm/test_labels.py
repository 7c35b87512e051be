"""Log-probabilities of the labels: what a server lists, what it leaves out, and what is none."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import mock
from annotators.llm.backends.openai_answers import completion
from annotators.llm.backends.vllm_model import VLLMModel
from annotators.llm.completion import Completion, Request
from annotators.llm.labels import Labels, of_listed, of_stored
from annotators.llm.question import stored
from annotators.llm.session import session
from farm.storage.store import Store
from tests.annotators.llm.cases import make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer

LABELS = ("1", "2")


def answer(text: str, listed: dict[str, Any], chosen: Any = None, alternatives: bool = True) -> dict[str, Any]:
    """A chat completion whose first token was chosen from the listed ones."""
    top = [{"token": t, "logprob": p} for t, p in listed.items()] if alternatives else []
    first = {"token": text, "logprob": listed[text] if chosen is None else chosen, "top_logprobs": top}
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": [first]}}]}


def by_openai(text: str, listed: dict[str, Any]) -> Completion:
    return completion(answer(text, listed), LABELS, "judge")


def by_vllm(text: str, listed: dict[str, Any]) -> Completion:
    tokens = {i: SimpleNamespace(decoded_token=t, logprob=p) for i, (t, p) in enumerate(listed.items())}
    said = SimpleNamespace(text=text, logprobs=[tokens], token_ids=[0], finish_reason="stop")
    engine = VLLMModel.__new__(VLLMModel)
    engine._name = "m"
    request = Request("m", "", "?", 1, labels=LABELS)
    return engine._completion(SimpleNamespace(outputs=[said], prompt_token_ids=[0]), request)


def verdict(said: Completion, store: Store) -> tuple[str, float, float]:
    """(status, preference, mass) of a pair that is answered so."""
    mock.script("as recorded")(lambda _: said)
    with session():
        table = LLMAnnotator("mock/as recorded", store=store).annotate(make_pairs(1), seed=0)
    return table["status"][0], float(table["preference"][0]), float(table["label_mass"][0])


def test_spellings_are_added_up_and_the_unlisted_label_is_bounded() -> None:
    found = of_listed({"1": math.log(0.5), " 1": math.log(0.25), "The": math.log(0.05)}, LABELS)
    assert found is not None
    assert math.exp(found.logs["1"]) == pytest.approx(0.75) == found.mass
    assert math.exp(found.logs["2"]) == pytest.approx(0.05)  # no likelier than the last that is listed
    found = of_listed({"1": math.log(0.6), "The": math.log(0.3)}, LABELS)
    assert found is not None and math.exp(found.logs["2"]) == pytest.approx(0.1)  # no more than is left over
    assert of_listed({"A": -0.1, "B": -3.0}, LABELS) is None


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=6), st.data())
def test_an_unlisted_label_is_never_likelier_than_it_could_be(weights: list[float], data: st.DataObject) -> None:
    """Of a full distribution the likeliest tokens are listed: the bound holds, and the mass is no overstatement."""
    total = sum(weights)
    whole = sorted(((w / total, t) for w, t in zip(weights, "12abcd", strict=False)), reverse=True)
    shown = {t: math.log(p) for p, t in whole[: data.draw(st.integers(2, len(whole)))]}
    found = of_listed(shown, LABELS)
    true = {t: p for p, t in whole}
    if found is None:
        assert not {"1", "2"} & set(shown)
        return
    for label in LABELS:
        assert math.exp(found.logs[label]) >= true.get(label, 0.0) - 1e-6
    assert found.mass <= true.get("1", 0.0) + true.get("2", 0.0) + 1e-9


def test_the_chosen_token_alone_is_read_as_text(store: Store) -> None:
    """The absent label had the chosen one's own value, and rounding of log(exp(p)) decided."""
    said = [-0.1 - k / 1000 for k in range(200)]

    def plan(number: int, *_: object) -> Fault:
        return Fault(raw=json.dumps(answer("1", {"1": said[number]}, alternatives=False)).encode())

    with FaultServer(plan) as server:
        annotator = LLMAnnotator("openai/judge", base_url=server.url, store=store)
        table = annotator.annotate(make_pairs(200), seed=0)
    assert (table["preference"] == 1.0).all()
    assert table[["p_first", "label_mass"]].isna().all(axis=None)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 0.5, 1000.0, None, "high", 10**400])
@pytest.mark.parametrize("where", ["chosen", "other"])
def test_what_is_no_log_probability_counts_as_none(odd: Any, where: str, store: Store) -> None:
    listed = {"1": odd, "2": -1.0} if where == "chosen" else {"1": -0.5, "2": odd}
    said = completion(answer("1", listed), LABELS, "judge")
    assert said.labels is None and said.mass is None
    assert verdict(said, store)[:2] == ("ok", 1.0)  # what the text says
    if isinstance(odd, float):
        assert by_vllm("1", listed).labels is None


@pytest.mark.parametrize("backend", [by_openai, by_vllm])
def test_labels_from_the_tail_are_no_verdict(backend: Any, store: Store) -> None:
    said = backend("<think>", {"<think>": -1e-6, "1": -20.0, "2": -18.0, "x": -25.0})
    status, preference, mass = verdict(said, store)
    assert status == "unparseable" and np.isnan(preference)
    assert mass == pytest.approx(math.exp(-18) + math.exp(-20))


@pytest.mark.parametrize("backend", [by_openai, by_vllm])
@pytest.mark.parametrize(("mass", "status"), [(0.49, "unparseable"), (0.51, "ok")])
def test_labels_need_half_of_the_mass(backend: Any, mass: float, status: str, store: Store) -> None:
    listed = {"1": math.log(mass * 0.9), "2": math.log(mass * 0.1), "Both": math.log(1 - mass)}
    said = backend("1", listed)
    assert verdict(said, store)[::2] == (status, pytest.approx(mass))


def test_answers_stored_before_there_were_masses_are_read_by_the_same_rules(store: Store) -> None:
    old = {"text": "2", "labels": {"1": -0.1, "2": -0.1}, "input_tokens": 1, "output_tokens": 1, "finish": "stop",
           "model": "m", "seconds": 0.1, "price": 0.0}  # fmt: skip
    kept = stored(old).completion
    assert kept is not None and of_stored(kept.labels, kept.mass) is None
    assert verdict(kept, store)[:2] == ("ok", 2.0)
    assert of_stored({"1": -0.1, "2": -2.5}, None) == Labels(
        {"1": -0.1, "2": -2.5}, pytest.approx(math.exp(-0.1) + math.exp(-2.5))
    )
    assert of_stored({"1": math.nan, "2": -1.0}, None) is None


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1.0])
def test_a_temperature_is_a_number(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        LLMAnnotator("mock/longer", temperature=temperature)


def test_two_spellings_of_a_label_that_add_up_to_more_than_one_by_rounding_are_still_read() -> None:
    first = of_listed({"1": -0.0001, " 1": -5.5, "x": -9.0}, LABELS)
    assert first is not None and of_stored(first.logs, first.mass) == first
