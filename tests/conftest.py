"""Shared fixtures: the optional reference data, and a clean home for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; its tensors here are too small to share

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; a child would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("farm", deadline=None)  # a machine that is busy with others is no failure
settings.load_profile("farm")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("human/llmfao")`` is that path below the reference data, or the test is skipped."""
    base = Path(os.environ.get("FARM_TEST_DATA") or ROOT.parent / "shared" / "data")

    def locate(relative: str) -> Path:
        path = base / relative
        if not path.exists():
            pytest.skip(f"reference data {relative} is absent: set FARM_TEST_DATA to the folder that has it")
        return path

    return locate


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own store, and none reaches a hub."""
    if not os.environ.get("FARM_TEST_HOME"):
        monkeypatch.setenv("FARM_HOME", str(tmp_path_factory.mktemp("farm-home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
