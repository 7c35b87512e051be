"""Sampling with recorded steps, on the pretend accelerator and a recorder that takes and refuses what CUDA's does."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from farm.engines import graphs
from farm.engines.graphs import GraphedLlama, graphed
from farm.engines.transformers import Transformers
from farm.hardware.models import tiny_llama
from farm.policies import language_model
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Samples
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer
from tests.pretend_accelerator import Accelerator
from tests.pretend_graphs import PretendRecorder

MADE: list[PretendRecorder] = []


class Noted(PretendRecorder):
    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        MADE.append(self)


@pytest.fixture(autouse=True)
def recorder(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.clear()
    monkeypatch.setitem(graphs.RECORDERS, accelerator.device.type, Noted)
    monkeypatch.setattr(graphs, "COLUMNS", 8)
    monkeypatch.setattr(graphs, "SHORT", 4)


def policy_on(there: Accelerator, recorded: bool = True, **settings: Any) -> LanguageModelPolicy:
    given = {"template": "{prompt}", "max_new_tokens": 24, "engine": Transformers(512, graphs=recorded), **settings}
    return LanguageModelPolicy(small_model().to(there.device), word_tokenizer(), **given)


def assert_same(found: Samples, expected: Samples) -> None:
    assert [t.tolist() for t in found.response_tokens] == [t.tolist() for t in expected.response_tokens]
    assert found.finish_reason == expected.finish_reason
    for a, b in zip(found.log_probabilities, expected.log_probabilities, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


ENDS: dict[str, Any] = {"extra_eos": ["w3", "w4", "w5"], "forbidden_tokens": [1, 4]}


@pytest.mark.parametrize("prompts", [PROMPTS * 5, ["w5 w6"] * 7, ["w1"]], ids=["gaps", "no gaps", "one row"])
def test_recorded_steps_write_what_plain_ones_do(prompts: list[str], accelerator: Accelerator) -> None:
    """Rows end, so that they are moved and halved, and the cache grows over a few recordings."""
    plain = policy_on(accelerator, recorded=False, **ENDS).sample(prompts, seed=1, purpose="t")
    assert not MADE
    found = policy_on(accelerator, **ENDS).sample(prompts, seed=1, purpose="t")
    assert_same(found, plain)
    assert len(MADE[0].recorded) > 1
    if len(prompts) > 7:
        assert set(plain.finish_reason) == {"stop", "length"}


def test_rows_in_several_batches_begin_anew(accelerator: Accelerator) -> None:
    plain = policy_on(accelerator, recorded=False).sample(PROMPTS * 2, seed=1, purpose="t")
    engine = Transformers(rows_at_once=5)
    assert_same(policy_on(accelerator, engine=engine).sample(PROMPTS * 2, seed=1, purpose="t"), plain)


def test_a_token_is_one_launch_of_the_model_however_many_layers(accelerator: Accelerator) -> None:
    """It was some 27 a layer."""
    took: dict[tuple[int, bool], float] = {}
    for layers in (2, 4):
        for recorded in (False, True):
            model = tiny_llama(46, 16, layers, 2, 32, 64, 0).to(accelerator.device)
            engine = Transformers(graphs=recorded)
            policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", engine=engine)
            counts = []
            for limit in (19, 23):  # columns 17 to 24 are one shape
                accelerator.clear()
                policy.sample(["w1"] * 4, seed=0, purpose="t", max_new_tokens=limit)
                counts.append(sum(accelerator.launches.values()) - accelerator.launches["graph"])
                replays = accelerator.launches["graph"]
            took[layers, recorded] = (counts[1] - counts[0]) / 4
            assert replays == (22 - 3 if recorded else 0)  # steps but the first of each shape
    assert took[2, True] == took[4, True]
    assert took[4, False] - took[2, False] > 2 * 20
    assert took[2, False] - took[2, True] > 2 * 20


class Rebinding(GraphedLlama):
    """Counts positions in another tensor at each token."""

    def _step(self) -> None:
        super()._step()
        before, self.position = self.position, self.position.clone()
        before.sub_(1)


class Numbered(GraphedLlama):
    """Writes into the column that was the next when it was recorded."""

    def _step(self) -> None:
        self.column = torch.full_like(self.column, self.plain.used - 1)
        super()._step()


class Reading(GraphedLlama):
    """Asks the device for the column."""

    def _step(self) -> None:
        self.column.fill_(int(self.column))
        super()._step()


@pytest.mark.parametrize("wrong", [Rebinding, Numbered])
def test_what_does_not_stay_in_its_place_writes_other_texts_or_is_refused(
    wrong: type, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the tests above would show nothing."""
    plain = policy_on(accelerator, recorded=False).sample(PROMPTS * 2, seed=1, purpose="t")
    monkeypatch.setattr(graphs, "GraphedLlama", wrong)
    with pytest.raises((AssertionError, RuntimeError), match=r"assert|tolerance|memory that was given back"):
        assert_same(policy_on(accelerator).sample(PROMPTS * 2, seed=1, purpose="t"), plain)


def test_what_cannot_be_recorded_is_said_and_sampled_plainly(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = policy_on(accelerator, recorded=False, **ENDS).sample(PROMPTS * 3, seed=1, purpose="t")
    monkeypatch.setattr(graphs, "GraphedLlama", Reading)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing.*`graphs: false`") as said:
        found = policy_on(accelerator, **ENDS).sample(PROMPTS * 3, seed=1, purpose="t")
    assert_same(found, plain)
    assert len(said) == 1 and not MADE[0].recorded


def test_other_architectures_are_told(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(graphs.progress, "note", notes.append)
    plain = policy_on(accelerator, recorded=False).sample(PROMPTS, seed=1, purpose="t")
    monkeypatch.setattr(language_model, "is_plain_llama", lambda model: False)
    assert_same(policy_on(accelerator).sample(PROMPTS, seed=1, purpose="t"), plain)
    assert len(notes) == 1 and "Llama architecture alone" in notes[0] and not MADE


def test_a_processor_and_a_few_tokens_take_no_recording(accelerator: Accelerator) -> None:
    decoder = make_policy().decoder()
    assert graphed(decoder, torch.device("cpu")) is decoder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy_on(accelerator).sample(PROMPTS, seed=1, purpose="t", max_new_tokens=3)
    assert not MADE[0].recorded


def test_all_recordings_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sampling took another of the 32 that torch has, with cuBLAS's working memory for every one."""
    made: list[Any] = []

    def stream(device: torch.device) -> object:
        made.append(device)
        return object()

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(graphs, "_stream", cache(graphs._stream.__wrapped__))
    first, second, other = (graphs.CudaRecorder(torch.device("cuda", number)) for number in (0, 0, 1))
    assert first.stream is second.stream is not other.stream and len(made) == 2


# --- the recorder itself ----------------------------------------------------------------------------------------------


def test_a_recording_computes_nothing_and_a_replay_in_place(accelerator: Accelerator) -> None:
    x, total = torch.ones(3, device=accelerator.device), torch.zeros(3, device=accelerator.device)

    def step() -> None:
        total.add_(x * 2)

    with torch.no_grad():
        replay = PretendRecorder(accelerator.device).record(step)
        assert total.cpu().tolist() == [0, 0, 0]
        replay()
        x.add_(1)
        replay()
    assert total.cpu().tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    "refused",
    [
        lambda x, here: x.sum().item(),
        lambda x, here: torch.nonzero(x),
        lambda x, here: x[x > 0],
        lambda x, here: x.cpu(),
        lambda x, here: x.copy_(here),
        lambda x, here: x[here.long()],
        lambda x, here: here.to(x.device, non_blocking=True),
        lambda x, here: bool((x > 0).all()),
    ],
    ids=["item", "nonzero", "mask", "cpu", "copy", "index", "move", "bool"],
)
def test_what_cuda_does_not_record_is_refused(refused: Any, accelerator: Accelerator) -> None:
    x, here = torch.ones(3, device=accelerator.device), torch.zeros(3)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"not permitted when stream is capturing|same device"):
        PretendRecorder(accelerator.device).record(lambda: refused(x, here))


def test_a_replay_after_its_input_is_gone_is_refused(accelerator: Accelerator) -> None:
    x, total = [torch.ones(3, device=accelerator.device)], torch.zeros(3, device=accelerator.device)
    with torch.no_grad():
        replay = PretendRecorder(accelerator.device).record(lambda: total.add_(x[0]))
        replay()
        x.clear()
        with pytest.raises(RuntimeError, match="given back"):
            replay()
