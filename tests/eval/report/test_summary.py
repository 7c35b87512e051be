"""The few numbers at the head of a report."""

from types import SimpleNamespace
from typing import Any

import pytest

from eval.report import summary


def test_a_correlation_without_an_interval_reads_as_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It read `Spearman , 4 methods`."""
    nothing = dict.fromkeys(("annotations", "price", "people", "seconds"), 0)
    monkeypatch.setattr(summary.expenses, "totals", lambda run: nothing)
    row = {"spearman": 0.32, "spearman_low": float("nan"), "spearman_high": float("nan"), "n_methods": 4}
    run: Any = SimpleNamespace(board={}, correlation=lambda *roles: row, costs={})
    assert [figure["note"] for figure in summary.figures(run)] == ["Spearman, 4 methods"]
