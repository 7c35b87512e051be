"""Every method against every other, by one judge: the matrix that a leaderboard against a baseline cannot replace.

Where preferences go in circles there is no ranking; what can be said of a method is how it fares against each other
one, and how badly the one that suits worst beats it. Tables, besides those of the leaderboard:

``head_to_head``: one row for each ordered pair of methods
    first, second, win_rate (percent of comparisons that the first wins, a tie half), standard_error, low, high,
    n_instructions, n_total, missing (comparisons without a verdict)
``exploitability``: one row a method
    method, strongest (the method that beats it most often), win_rate (the strongest's against it), low, high,
    best_response (how often the best answer to it wins, in percent: for each instruction, of all answers of all
    methods), best_response_low, best_response_high, gap (2 (best_response/100 - 1/2), at least 0: a lower bound of the
    duality gap of the game without KL), gap_low, gap_high. The strongest is chosen on one half of the instructions and
    measured on the other, the best answer by one half of the method's own answers and measured on the other, and the
    halves change places: choosing the largest of several noisy numbers raises neither.

All methods answer an instruction with the same random draws, so a comparison takes one method's k-th answer and the
other's next one: they are independent. Intervals are clustered by instruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.asking.ask import ask
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Confidence
from farm.base.errors import UserError
from farm.feedback.pairs import KIND as PAIRS
from farm.roles.protocols import Annotator, Comparison, Evaluator
from farm.statistics.best_response import best_response, gap
from farm.statistics.uncertainty import SHARE, mean


@dataclass(frozen=True)
class HeadToHead(Bounded):
    """The tables of another evaluator, and those of this file.

    Args:
        judge: who decides.
        evaluator: what else is made of the experiment's annotations.
        confidence: of every interval.
        best_responses: whether to let all answers to an instruction meet, for the best response to each method. That
            is A (A - 1) / 2 verdicts an instruction, A the answers of all methods, so leave it out where verdicts
            cost money; then the gap is that of the strongest method.
    """

    judge: Annotator
    evaluator: Evaluator
    confidence: Confidence = 0.95
    best_responses: bool = True

    def evaluate(self, comparison: Comparison) -> dict[str, pd.DataFrame]:
        """All tables. Raises UserError where a method has one answer to an instruction only."""
        tables = dict(self.evaluator.evaluate(comparison))
        methods = sorted(comparison.outputs["method"].astype(str).unique())
        wins, total, missing = self._wins(comparison, methods)
        tables["head_to_head"] = self._matrix(methods, wins, total, missing)
        tables["exploitability"] = self._exploitability(methods, wins, self._best_responses(comparison, methods))
        said = [*tables.get("headlines", pd.DataFrame({"headline": []}))["headline"]]
        tables["headlines"] = pd.DataFrame({"headline": [*said, _headline(tables["exploitability"])]})
        return tables

    def _wins(self, comparison: Comparison, methods: list[str]) -> tuple[Floats, int, NDArray[np.int64]]:
        """The first's mean win of each instruction, [M, M, n] (NaN without a verdict), comparisons, missing ones."""
        answers = _answers(comparison)
        instructions = answers[methods[0]].index
        samples = answers[methods[0]].shape[1]
        if samples < 2:
            raise UserError("head to head takes at least 2 answers to each instruction: set sizes.samples")
        pairs = list(combinations(range(len(methods)), 2))
        table = pd.concat(
            [
                pd.DataFrame(
                    {
                        "instruction": np.repeat(instructions.to_numpy(), samples),
                        "output_1": answers[methods[a]].loc[instructions].to_numpy().reshape(-1),
                        "output_2": np.roll(answers[methods[b]].loc[instructions].to_numpy(), -1, axis=1).reshape(-1),
                        "generator_1": methods[a],
                        "generator_2": methods[b],
                    }
                )
                for a, b in pairs
            ],
            ignore_index=True,
        )
        verdict = self._ask(table, comparison.seed).reshape(len(pairs), -1, samples)
        count = (~np.isnan(verdict)).sum(2)
        share = np.where(count > 0, np.nansum(verdict, 2) / np.maximum(count, 1), np.nan)
        wins = np.full((len(methods), len(methods), len(instructions)), np.nan)
        missing = np.zeros((len(methods), len(methods)), dtype=np.int64)
        for row, (a, b) in enumerate(pairs):
            wins[a, b], wins[b, a] = share[row], 1 - share[row]
            missing[a, b] = missing[b, a] = int(np.isnan(verdict[row]).sum())
        return wins, len(instructions) * samples, missing

    def _ask(self, table: pd.DataFrame, seed: int, soft: bool = False) -> Floats:
        """1 where the first won, a tie 1/2, NaN without a verdict, [rows].

        With ``soft`` the probability of it, where the judge knows its own.
        """
        found = ask(PAIRS, self.judge, table, seed=seed)
        verdict = 2 - pd.to_numeric(found["preference"]).to_numpy(np.float64)
        if soft and "p_first" in found.columns:
            probability = pd.to_numeric(found["p_first"]).to_numpy(np.float64)
            verdict = np.where(np.isnan(probability), verdict, probability)
        return np.where(found["status"].to_numpy() == "ok", verdict, np.nan)

    def _best_responses(self, comparison: Comparison, methods: list[str]) -> Floats | None:
        """How often the best answer to each method wins, [M, n] (NaN without verdicts); None where none is computed."""
        if not self.best_responses:
            return None
        answers = _answers(comparison)
        instructions = answers[methods[0]].index
        texts = np.concatenate([answers[method].loc[instructions].to_numpy(object) for method in methods], axis=1)
        writer = np.repeat(np.arange(len(methods)), answers[methods[0]].shape[1])
        first, second = np.triu_indices(len(writer), 1)
        table = pd.DataFrame(
            {
                "instruction": np.repeat(instructions.to_numpy(), len(first)),
                "output_1": texts[:, first].reshape(-1),
                "output_2": texts[:, second].reshape(-1),
                "generator_1": np.tile(np.array(methods, object)[writer[first]], len(texts)),
                "generator_2": np.tile(np.array(methods, object)[writer[second]], len(texts)),
            }
        )
        verdict = self._ask(table, comparison.seed, soft=True).reshape(len(texts), len(first))
        wins = np.full((len(texts), len(writer), len(writer)), 0.5)
        wins[:, first, second], wins[:, second, first] = verdict, 1 - verdict
        return np.array([best_response(wins, np.flatnonzero(writer == m)) for m in range(len(methods))])

    def _matrix(self, methods: list[str], wins: Floats, total: int, missing: NDArray[np.int64]) -> pd.DataFrame:
        rows = []
        for a, first in enumerate(methods):
            for b, second in enumerate(methods):
                if a != b:
                    value, error, low, high, n = self._interval(wins[a, b])
                    names = {"first": first, "second": second}
                    numbers = {"win_rate": value, "standard_error": error, "low": low, "high": high}
                    rows.append({**names, **numbers, "n_instructions": n, "n_total": total, "missing": missing[a, b]})
        return pd.DataFrame(rows)

    def _exploitability(self, methods: list[str], wins: Floats, best: Floats | None) -> pd.DataFrame:
        halves = np.arange(wins.shape[2]) % 2
        rows = []
        for m, method in enumerate(methods):
            against = np.delete(wins[:, m], m, axis=0)  # each other method's wins over this one, [M - 1, n]
            others = [name for name in methods if name != method]
            held = np.full(wins.shape[2], np.nan)
            for half in (0, 1):
                chosen = int(np.nanmean(against[:, halves != half], axis=1).argmax())
                held[halves == half] = against[chosen, halves == half]
            value, _, low, high, _ = self._interval(held)
            strongest = others[int(np.nanmean(against, axis=1).argmax())]
            row: dict[str, object] = {
                "method": method,
                "strongest": strongest,
                "win_rate": value,
                "low": low,
                "high": high,
            }
            if best is not None:
                value, _, low, high, _ = self._interval(best[m])
                row |= {"best_response": value, "best_response_low": low, "best_response_high": high}
            row |= {name: float(gap(x / 100)) for name, x in (("gap", value), ("gap_low", low), ("gap_high", high))}
            rows.append(row)
        return pd.DataFrame(rows).sort_values("gap", kind="stable", ignore_index=True)

    def _interval(self, values: Floats) -> tuple[float, float, float, float, int]:
        """Mean, standard error and bounds in percent, of one number an instruction, and how many there are."""
        e = mean(values[~np.isnan(values)], confidence=self.confidence, bounds=SHARE)
        return 100 * e.value, 100 * e.standard_error, 100 * e.low, 100 * e.high, e.n


def _headline(exploitability: pd.DataFrame) -> str:
    best = exploitability.iloc[0]
    bounds = f"[{best['gap_low']:.2f}, {best['gap_high']:.2f}]"
    return (
        f"Nearest to an equilibrium: {best['method']}, gap to the best answer {best['gap']:.2f} {bounds}; what beats "
        f"it most is {best['strongest']}, in {best['win_rate']:.1f} %."
    )


def _answers(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Each method's answers: instructions down, samples across."""
    return {
        method: table.pivot(index="instruction", columns="sample", values="output")
        for method, table in comparison.outputs.groupby(comparison.outputs["method"].astype(str))
    }
