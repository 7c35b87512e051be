"""Pairs, stores and limits for annotators that ask a model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from farm.asking.limits import Limits
from farm.base import progress
from farm.storage.store import Store
from tests.annotators.llm.cases import make_pairs


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """The SDKs take seconds to import, which no test should mistake for a slow server."""
    importlib.import_module("openai")
    importlib.import_module("anthropic")


@pytest.fixture
def pairs() -> pd.DataFrame:
    return make_pairs(40)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite")


@pytest.fixture
def quick() -> Limits:
    """Limits that do not make a test wait."""
    return Limits(shortest_wait=0.01, longest_wait=0.05, timeout=60.0, concurrency=8)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-SECRETSECRET1234567890")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-SECRETSECRET1234567890")
    monkeypatch.setenv("JUDGE_KEY", "sk-judge-SECRETSECRET1234567890")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    progress._said.clear()
