"""Stub features: texts are the numbers of rows of a table, so a test says exactly what an annotator sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest


@dataclass(frozen=True)
class TableFeatures:
    """The text "17" has the features of row 17."""

    table: pd.DataFrame
    gold: dict[str, float] = field(default_factory=lambda: {"u": 1.0})
    asked: list[int] = field(default_factory=list)

    def __call__(self, instructions: Sequence[str], outputs: Sequence[str]) -> pd.DataFrame:
        self.asked.append(len(outputs))
        return self.table.iloc[[int(text) for text in outputs]].reset_index(drop=True)

    @property
    def gold_weights(self) -> dict[str, float]:
        return self.gold

    def description(self) -> object:
        return {"table": self.table.to_dict("list"), "gold": self.gold}


def features_of(gold: dict[str, float] | None = None, **columns: object) -> TableFeatures:
    table = pd.DataFrame(columns)
    for needed in ("length", "lists"):
        if needed not in table:
            table[needed] = 0.0
    return TableFeatures(table, gold or {"u": 1.0})


def pairs_of(first: object, second: object, instruction: str = "x") -> pd.DataFrame:
    """One row a pair; each pair has its own instruction, so that equal texts in two rows are two pairs."""
    first, second = np.broadcast_arrays(np.asarray(first), np.asarray(second))
    return pd.DataFrame(
        {
            "instruction": [f"{instruction} {i}" for i in range(len(first))],
            "output_1": [str(i) for i in first],
            "output_2": [str(i) for i in second],
            "generator_1": "one",
            "generator_2": "two",
        }
    )


@pytest.fixture(name="features_of", scope="session")
def _features_of() -> Callable[..., TableFeatures]:
    return features_of


@pytest.fixture(name="pairs_of", scope="session")
def _pairs_of() -> Callable[..., pd.DataFrame]:
    return pairs_of


@pytest.fixture
def annotate() -> Callable[..., str]:
    """``farm annotate`` with these arguments, in this process; what it prints. Exceptions come through."""
    import typer
    from typer.testing import CliRunner

    from annotators.face import commands

    app = typer.Typer()
    commands.register(app)

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["annotate", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run
