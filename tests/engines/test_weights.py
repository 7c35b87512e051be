"""What an engine is told of weights: when they have changed, in which files, and who shares a vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from farm.base.errors import UserError
from farm.engines import vllm, weights
from farm.engines.vllm import VLLM, running_key
from farm.engines.weights import Folder, Stamp, base_parameters, size_of, write_model
from farm.hardware import processes
from farm.policies import load
from tests.engines.conftest import make_policy, perturb
from tests.policies.conftest import PROMPTS

LORA = {"rank": 4, "alpha": 8.0, "seed": 0}


def test_every_kind_of_change_is_noticed() -> None:
    policy, stamp = make_policy(), Stamp()
    weights = list(policy.parameters())
    assert not stamp.is_current(weights)
    stamp.put(weights)
    assert stamp.is_current(weights) and not stamp.is_current(list(make_policy().parameters()))
    perturb(policy, size=1e-3)
    assert not stamp.is_current(weights)
    stamp.put(weights)
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)  # does not count a tensor's version up
    policy.log_probabilities(policy.encode(PROMPTS, PROMPTS))[0].sum().backward()
    before = [p._version for p in weights]
    optimizer.step()
    assert [p._version for p in weights] == before, "torch counts now: the sums are no longer needed"
    assert not stamp.is_current(weights)


def test_the_files_are_those_of_the_model_untied_and_merged(tmp_path: Path) -> None:
    policy = make_policy().with_settings(lora=LORA)
    perturb(policy)
    write_model(policy.model, tmp_path / "merged", merge=True)
    write_model(policy.model, tmp_path / "base", merge=False)
    merged, base = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "base"))
    plain = policy.with_settings(lora=None).model.state_dict()
    assert merged.keys() == base.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(merged[name], tensor)
    assert not torch.equal(base["model.layers.0.mlp.up_proj.weight"], merged["model.layers.0.mlp.up_proj.weight"])
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False and config["architectures"] == ["LlamaForCausalLM"]


def test_adapters_leave_the_base_as_it_was() -> None:
    base, stamp = make_policy(), Stamp()
    stamp.put(base_parameters(base.model))
    policy = base.with_settings(lora=LORA)
    perturb(policy)
    assert stamp.is_current(base_parameters(policy.model))  # the very same tensors


def test_folders_go_with_their_owner() -> None:
    folder = Folder()
    path = folder.path
    assert path.is_dir()
    folder.close()
    assert not path.exists()


def test_a_folder_in_memory_is_taken_only_where_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's has 64 MB, and a file that does not fit there ended in an error of safetensors."""
    model, memory = make_policy().model, Path("/dev/shm")
    free = {str(memory): size_of(model), str(tmp_path): 10**12}
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(weights.os, "access", lambda *_: True)
    monkeypatch.setattr(weights.Path, "is_dir", lambda self: True)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[str(path)]))
    folder = Folder(room=size_of(model))
    assert folder.path.parent == tmp_path
    write_model(model, folder.path / "model", merge=True)
    written = (folder.path / "model" / "model.safetensors").stat().st_size
    assert 0.9 * written < size_of(model) < 1.1 * written
    folder.close()
    free[str(memory)] += 1
    assert weights._with_room(size_of(model)) == memory
    free[str(memory)] = free[str(tmp_path)] = 0
    with pytest.raises(UserError, match=r"neither /dev/shm nor .* has room"):
        Folder(room=size_of(model))


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(weights.os, "access", lambda *_: False)  # so the folders are not in this machine's memory
    script = f"""
import os, sys
from pathlib import Path
from farm.engines import vllm, weights
weights.tempfile.gettempdir, weights.os.access = (lambda: {str(tmp_path)!r}), (lambda *_: False)
folder = weights.Folder()
print(folder.path, flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        first = Folder()
        assert theirs.parent == first.path.parent == tmp_path and theirs.is_dir()
        other.kill()
        other.wait()
    second = Folder()
    assert first.path.is_dir() and second.path.is_dir() and not theirs.exists()
    first.close(), second.close()
    assert not list(tmp_path.iterdir())


def test_a_vllm_that_was_interrupted_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on with what was asked for before, and give it with the next answers."""

    class Interrupted:
        closed = False

        def write(self, *_: object) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            self.closed = True

    policy, running = make_policy(engine=VLLM()), Interrupted()
    monkeypatch.setattr(vllm, "_RUNNING", {running_key(VLLM(), policy): running})
    with pytest.raises(KeyboardInterrupt):
        policy.sample(PROMPTS, seed=0, purpose="t")
    assert running.closed and not vllm._RUNNING


def test_policies_of_one_architecture_share_a_vllm(tmp_path: Path) -> None:
    policy = make_policy()
    policy.save(tmp_path / "a")
    policy.save(tmp_path / "b")
    keys = {running_key(VLLM(), load(tmp_path / name)) for name in "ab"}
    assert len(keys) == 1
    assert running_key(VLLM(context=64), load(tmp_path / "a")) not in keys


def test_several_processes_are_sent_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    with pytest.raises(UserError, match="engine: server"):
        make_policy(engine=VLLM()).sample(PROMPTS, seed=0, purpose="t")
