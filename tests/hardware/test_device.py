"""Where models are put: the rule, every loader that asks it, and what says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from annotators.people.likelihood import Likelihood
from farm.base.errors import UserError
from farm.hardware import device as placement
from farm.hardware import processes
from farm.hardware.device import accelerator as accelerator_there
from farm.hardware.device import device, using
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.worlds.grid import GridWorld
from farm.worlds.matrix import MatrixWorld
from farm.worlds.outcomes import OutcomesWorld
from farm.worlds.pocket.world import PocketWorld
from farm.worlds.quiz_table import QuizTableWorld
from farm.worlds.text import TextWorld
from reference_methods.models.general_preference_model import Planes
from reference_methods.models.generative_preference_model import Judge
from reference_methods.models.preference_model import Pairwise
from reference_methods.parts.games.models import embedder
from tests.merging import counted
from tests.policies.conftest import PROMPTS, small_model, word_tokenizer
from tests.pretend_accelerator import Accelerator


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, local_rank: int | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))


@pytest.mark.parametrize(
    ("count", "rank", "expected"),
    [(0, None, "cpu"), (0, 1, "cpu"), (1, None, "cuda:0"), (4, None, "cuda:0"), (4, 2, "cuda:2")],
)
def test_each_process_has_the_gpu_of_its_rank(
    monkeypatch: pytest.MonkeyPatch, count: int, rank: int | None, expected: str
) -> None:
    gpus(monkeypatch, count, rank)
    assert device() == torch.device(expected) and device("cpu") == torch.device("cpu")


def test_the_one_gpu_that_a_process_sees_is_its_own_where_a_launcher_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, local_rank=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert device() == torch.device("cuda:0")


def test_processes_do_not_share_the_one_gpu_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each took it, as if a launcher had shown it that one alone."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus(monkeypatch, 1, local_rank=0)
    assert device() == torch.device("cuda:0")
    gpus(monkeypatch, 1, local_rank=1)
    with pytest.raises(UserError, match=r"process 2 .* sees 1: start as many processes as GPUs"):
        device()


def test_what_is_asked_for_and_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    with pytest.raises(UserError, match="device: cuda, but"):
        device("cuda")
    gpus(monkeypatch, 2, local_rank=2)
    with pytest.raises(UserError, match=r"process 3 .* sees 2"):
        device()


def test_a_setting_holds_inside_and_the_innermost_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    with using("cpu"):
        assert device().type == "cpu" and device("cuda").type == "cuda"
        with using(None):
            assert device().type == "cpu"
        with using("cuda"):
            assert device().type == "cuda"
    assert device().type == "cuda"


def test_processes_with_gpus_can_also_send_what_lies_on_the_processor() -> None:
    assert processes.back_end(torch.device("cuda", 1)) == "cpu:gloo,cuda:nccl"
    assert processes.back_end(torch.device("cpu")) == "gloo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and its tokenizer, written on the processor."""
    save_causal_lm(small_model(), word_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def places(found: Any) -> set[str]:
    return {str(parameter.device) for parameter in found.parameters()}


def test_every_loader_puts_its_model_on_the_accelerator(folder: Path, tmp_path: Path, accelerator: Accelerator) -> None:
    (tmp_path / "i.json").write_text(json.dumps([{"instruction": f"w{i}"} for i in range(20)]))
    there, here = str(accelerator.device), {"cpu"}
    told = {"model": str(folder), "instructions": str(tmp_path / "i.json")}
    policy = TextWorld(**told).base_policy()
    assert places(policy) == {there} and places(TextWorld(**told, device="cpu").base_policy()) == here
    saved: dict[str, Any] = {
        "policy": policy,
        "scorer": policy.scorer(1),
        "planes": Planes(embedder(policy, 4, 0), False, 1.0),
        "pairwise": Pairwise(policy.scorer(2)),
        "judge": Judge(policy),
    }
    for name, model in saved.items():
        model.save(tmp_path / name)
        assert places(load(tmp_path / name)) == {there}, name
        assert places(load(tmp_path / name, device="cpu")) == here, name
    samples = policy.encode(PROMPTS, PROMPTS)
    again = load(tmp_path / "policy")
    assert isinstance(again, LanguageModelPolicy)
    torch.testing.assert_close(
        again.log_probabilities(samples)[0].detach().cpu(), policy.log_probabilities(samples)[0].detach().cpu()
    )


def test_the_likelihood_annotator_reads_there_what_it_reads_here(folder: Path, accelerator: Accelerator) -> None:
    texts = ["w1 w2", "w3"], ["w4", "w5 w6"]
    there, _ = Likelihood(str(folder))(*texts)
    assert accelerator.launches
    accelerator.clear()
    here, _ = Likelihood(str(folder), device="cpu")(*texts)
    assert not accelerator.launches
    assert there == pytest.approx(here, abs=1e-5)


def test_tied_embeddings_stay_one(folder: Path, accelerator: Accelerator) -> None:
    model, _ = load_causal_lm(str(folder))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.device == accelerator.device


def test_adapters_are_saved_without_a_second_model_on_the_accelerator(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A 7B that fitted a GPU of 24 GB with its adapters did not fit it any more when it was saved."""
    pytest.importorskip("peft")
    lora = {"rank": 2, "alpha": 4.0, "seed": 0}
    policy = LanguageModelPolicy(small_model().to(accelerator.device), word_tokenizer(), template="{prompt}", lora=lora)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    alive = counted(monkeypatch)
    policy.save(tmp_path)
    assert len(alive) == 2 * 7 and max(alive) <= 2
    samples = policy.encode(PROMPTS, PROMPTS)
    torch.testing.assert_close(
        load(tmp_path, device="cpu").log_probabilities(samples)[0].detach(),  # type: ignore[attr-defined]
        policy.log_probabilities(samples)[0].detach().cpu(),
        atol=1e-4,
        rtol=1e-4,
    )


def test_tiny_worlds_say_that_they_stay_on_the_processor(tmp_path: Path, accelerator: Accelerator) -> None:
    world = MatrixWorld(utilities=[0.0, 1.0], prompts=3)
    assert {w.device for w in (world, GridWorld, OutcomesWorld, QuizTableWorld, PocketWorld)} == {"cpu"}
    assert places(world.base_policy()) == {"cpu"}
    policy, _ = PocketWorld().untrained_policy()
    assert places(policy) == {"cpu"}
    policy.scorer(0).save(tmp_path / "scorer")
    assert places(load(tmp_path / "scorer", device=PocketWorld.device)) == {"cpu"}


def test_the_accelerator_is_gone_with_the_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert placement.accelerator is accelerator_there and device().type == "cpu"
