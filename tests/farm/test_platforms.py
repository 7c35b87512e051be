"""Other systems, by fakes: what macOS counts otherwise, what Windows has not, and what only Linux says."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from farm.base import files, platforms
from farm.base.errors import UserError
from farm.experiments import experiment, run_folder
from farm.scheduling import environment


@pytest.mark.parametrize(("system", "gib"), [("linux", 2.0), ("darwin", 2.0 / 1024)])
def test_peak_memory_is_in_bytes_where_it_is_counted_in_bytes(
    system: str, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2 * 2**20))
    monkeypatch.setattr(sys, "platform", system)
    assert run_folder.costs([], {})["peak_memory_gib"] == pytest.approx(gib)


def test_windows_is_told_of_wsl_before_anything_else() -> None:
    """Also where its modules are missing: nothing that is imported before that sentence needs them."""
    code = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import farm\nfrom farm.cli import main\nfrom farm.base.errors import UserError\n"
        "sys.platform, sys.argv = 'win32', ['farm', 'list']\n"
        "try:\n    farm.annotate\nexcept UserError as error:\n    print(error)\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "install WSL" in done.stderr and done.stderr.count("\n") == 1
    assert "install WSL" in done.stdout


def test_where_the_system_does_not_say_which_cores_are_ours_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= platforms.cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert platforms.cores() == os.cpu_count()


def test_without_proc_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(environment, "CARDS", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpus() == []


@pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script")
def test_where_proc_names_no_gpu_nvidias_command_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Windows' subsystem for Linux, where --engine local started a worker a core on one GPU."""
    command = tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA RTX A (UUID: GPU-1)'\necho 'GPU 1: NVIDIA RTX A (UUID: GPU-2)'\n"
    )
    command.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(environment, "CARDS", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpus() == ["0", "1"]
    command.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert environment.gpus() == []


def test_without_a_folder_in_memory_weights_go_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.engines import weights

    real = Path
    monkeypatch.setattr(weights, "Path", lambda path: real(path) if path != "/dev/shm" else tmp_path / "none")
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(tmp_path))
    assert weights._with_room(1) == tmp_path


def test_names_that_macos_takes_for_one_file_are_refused(tmp_path: Path) -> None:
    assert files.alike(["a", "b"]) is None
    assert files.alike(["DPO", "b", "dpo"]) == ("DPO", "dpo")
    base = {"world": "matrix", "sft": None, "methods": {"dpo": None}}
    for changes, why in (
        ({"methods": {"dpo": None, "DPO": {"use": "dpo"}}}, "`dpo` and `DPO` would be one file"),
        ({"judges": {"judge": "evaluation", "gold": "gold", "Gold": "gold"}}, "judges: `gold` and `Gold`"),
        ({"sweep": {"annotator": {"x": "person", "X": "gold"}}}, "both called"),
    ):
        (tmp_path / "e.yaml").write_text(yaml.safe_dump({**base, **changes}, sort_keys=False))
        with pytest.raises(UserError, match=why):
            experiment.load(str(tmp_path / "e.yaml"))
