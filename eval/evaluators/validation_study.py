"""AlpacaFarm's validation of a simulator: is the ranking found in simulation the ranking found with people?

Every method is trained twice, on simulated and on "human" feedback, and each result is judged by its own kind: the
simulated number of a method is the win rate, by the simulated judge, of what it learned from simulated feedback; the
human number is the win rate, by the human judge, of what it learned from human feedback (arXiv 2305.14387, figure 3 and
table 2). In a world of ours the "humans" are a second simulated population, so this validates the machinery and the
statistics, not the simulator against real people.

Tables, besides those of the aggregator it stands on:

``validation``: one row a method, best first by the human number (percent)
    method, simulated, _low, _high, human, _low, _high, rank_simulated, rank_human, rank_difference, and the published
    numbers of the same method where there are any: published_simulated, published_human with their _error
``validation_summary``: one row for each comparison of two numbers over the methods
    first, second, what, n_methods; spearman, kendall, r_squared, each with _low, _high (of the true scores, over seeds
    and instructions); spearman, r_squared with _methods_low, _methods_high (other methods); expected_spearman: the mean
    of the Spearman correlations that errors as large as ours leave of two identical rankings, which is what limits it;
    published_spearman, published_r_squared
``headlines``: the first row of it in sentences
``mismatches``: each two methods that the two numbers order differently
    first (better in simulation), second, simulated_difference, human_difference, each with _p; clear: both at 5 % after
    Holm over all pairs
``published``: AlpacaFarm's table 2, the rows with both numbers (its figure 3)
    method, published_as, simulated, human, each with _low, _high
``validation_costs``: what the labels cost, and the ratio to people
    feedback, purpose, labels, price, price_of_people, ratio, published_price, published_ratio (per 1000 labels)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.evaluators.replicates import Replicated, correlations
from eval.ranks import ranking
from eval.rates.multiple import all_differences, holm
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Confidence, Count
from farm.base.errors import UserError
from farm.experiments import run_tables
from farm.experiments.run_folder import HUMAN_PRICE
from farm.roles.protocols import Aggregator, Replication
from farm.statistics.uncertainty import SHARE, limits, p_values

PUBLISHED: dict[str, tuple[str, float, float, float | None, float | None]] = {
    "ppo": ("PPO", 46.8, 1.8, 55.1, 1.7),
    "best_of_n": ("Best-of-16", 45.0, 1.7, 50.7, 1.8),
    "expert_iteration": ("Expert iteration", 41.9, 1.7, 45.7, 1.7),
    "sft": ("SFT 10k", 36.7, 1.7, 44.3, 1.7),
    "feedme": ("Binary FeedME", 36.6, 1.7, 37.9, 1.7),
    "quark": ("Quark", 35.6, 1.7, None, None),
    "reward_conditioning": ("Binary reward conditioning", 32.4, 1.6, None, None),
}
"""AlpacaFarm's table 2 for LLaMA 7B: win rates against Davinci003 in percent with standard errors; the baseline is
another, so the numbers are not comparable, the order is"""
PUBLISHED_ONLY: dict[str, tuple[float, float, float, float]] = {
    "GPT-4": (79.0, 1.4, 69.8, 1.6),
    "ChatGPT": (61.4, 1.7, 52.9, 1.7),
    "SFT 52k": (39.2, 1.7, 40.7, 1.7),
    "Davinci001": (24.4, 1.5, 32.5, 1.6),
    "LLaMA 7B": (11.3, 1.1, 6.5, 0.9),
}
"""the rows of the same table that no method of ours stands for"""
PUBLISHED_SPEARMAN, PUBLISHED_R_SQUARED = 0.98, 0.87
PUBLISHED_PRICES = {"training": (6.0, 300.0), "evaluation": (12.0, 300.0)}
"""US dollars per 1000 labels, simulated and by people (section 3 of the paper)"""


@dataclass(frozen=True)
class ValidationStudy(Bounded):
    """The aggregator of ``validation.yaml``: a sweep over who gives the feedback, of two values.

    Args:
        aggregator: makes the other tables.
        simulated, human: the names of the two values of the sweep.
        simulated_judge, human_judge: the roles that judge.
        confidence: of every interval.
        rounds: bootstrap rounds.
    """

    aggregator: Aggregator
    simulated: str = "simulated"
    human: str = "human"
    simulated_judge: str = "judge"
    human_judge: str = "humans"
    confidence: Confidence = 0.95
    rounds: Count = 1000

    def aggregate(self, replication: Replication) -> dict[str, pd.DataFrame]:
        """All tables. Raises UserError where the sweep or the judges are not those of a validation."""
        found = Replicated.read(replication)
        cells = self._cells(found)
        summary = self._summary(found, cells)
        return {
            **self.aggregator.aggregate(replication),
            "validation": self._validation(found, cells),
            "validation_summary": summary,
            "headlines": pd.DataFrame({"headline": [headline(summary)]}),
            "mismatches": self._mismatches(found, cells),
            "validation_costs": self._costs(replication),
            "published": published(),
        }

    def _cells(self, found: Replicated) -> list[tuple[str, int, int]]:
        """(method, its column when trained on simulated feedback, and on human feedback)."""
        values = [list(labels.values()) for labels in found.settings]
        named = [str(v[0]) for v in values if len(v) == 1]
        if sorted(named) != sorted([self.simulated, self.human]) or len(named) != len(values):
            raise UserError(
                f"a validation sweeps over one key with the two values `{self.simulated}` and `{self.human}`: "
                f"sweep: {{annotator: {{{self.simulated}: training, {self.human}: humans}}}}"
            )
        for role in (self.simulated_judge, self.human_judge):
            if role not in found.measures:
                raise UserError(f"a validation needs a judge called `{role}`; found: {', '.join(found.measures)}")
        settings = [named.index(self.simulated), named.index(self.human)]
        place = {column: k for k, column in enumerate(found.columns)}
        both = [m for m in found.methods if all((s, m) in place for s in settings)]
        if len(both) < 3:
            raise UserError(f"a validation needs at least three methods with both kinds of feedback, found {len(both)}")
        return [(m, place[settings[0], m], place[settings[1], m]) for m in both]

    def _columns(self, found: Replicated, cells: list[tuple[str, int, int]]) -> tuple[Floats, Floats]:
        """Contrasts that pick the simulated and the human number of each method, [M, K] each."""
        simulated, human = np.zeros((2, len(cells), len(found.columns)))
        for m, (_, a, b) in enumerate(cells):
            simulated[m, a] = human[m, b] = 1.0
        return simulated, human

    def _validation(self, found: Replicated, cells: list[tuple[str, int, int]]) -> pd.DataFrame:
        table = pd.DataFrame({"method": [m for m, _, _ in cells]})
        sides = (("simulated", self.simulated_judge), ("human", self.human_judge))
        for (name, role), contrasts in zip(sides, self._columns(found, cells), strict=True):
            value, error, degrees = found.measures[role].contrasts(contrasts)
            units = contrasts @ found.measures[role].units
            low, high = limits(value, error, units, SHARE, self.confidence, degrees=degrees)
            table[name] = 100 * value
            table[f"{name}_low"], table[f"{name}_high"] = 100 * low, 100 * high
            table[f"rank_{name}"] = ranking.positions(value).astype(int)
        table["rank_difference"] = table["rank_simulated"] - table["rank_human"]
        published = [PUBLISHED.get(m, (None, None, None, None, None)) for m in table["method"]]
        names = ("published_as", "published_simulated", "published_simulated_error", "published_human")
        for position, name in enumerate((*names, "published_human_error")):
            table[name] = [row[position] for row in published]
        return table.sort_values(["rank_human", "method"], kind="stable", ignore_index=True)

    def _summary(self, found: Replicated, cells: list[tuple[str, int, int]]) -> pd.DataFrame:
        a, b = (np.array(side) for side in zip(*((a, b) for _, a, b in cells), strict=True))
        judge, humans = self.simulated_judge, self.human_judge
        numbers = [
            ("simulated", "human", "each trained on and judged by its own kind", judge, a, humans, b),
            ("simulated", "transferred", "trained on simulated: judged by simulated, by human", judge, a, humans, a),
            ("transferred", "human", "judged by human: trained on simulated, on human", humans, a, humans, b),
        ]
        if "gold_utility" in found.measures:
            truth = "gold_utility"
            numbers += [
                ("simulated", "truth", "trained on simulated: judged by simulated, true utility", judge, a, truth, a),
                ("human", "truth", "trained on human: judged by human, true utility", humans, b, truth, b),
            ]
        rows = []
        for first, second, what, one, i, other, j in numbers:
            row: dict[str, object] = {"first": first, "second": second, "what": what}
            row |= correlations(found, one, i, other, j, self.rounds, self.confidence)
            x, y = found.measures[one].means[i], found.measures[other].means[j]
            over = ranking.correlation(x, y, statistic="spearman", confidence=self.confidence)
            row |= {"spearman_methods_low": over.low, "spearman_methods_high": over.high}
            over = ranking.correlation(x, y, statistic="pearson", confidence=self.confidence)
            row |= {"r_squared_methods_low": max(over.low, 0.0) ** 2, "r_squared_methods_high": over.high**2}
            eye = np.eye(len(found.columns))
            errors = [found.measures[m].contrasts(eye[k])[1] for m, k in ((one, i), (other, j))]
            row["expected_spearman"] = expected_spearman(x, y, errors[0], errors[1], self.rounds, found.seed)
            is_main = (first, second) == ("simulated", "human")
            row["published_spearman"] = PUBLISHED_SPEARMAN if is_main else None
            row["published_r_squared"] = PUBLISHED_R_SQUARED if is_main else None
            rows.append(row)
        return pd.DataFrame(rows)

    def _mismatches(self, found: Replicated, cells: list[tuple[str, int, int]]) -> pd.DataFrame:
        differences = all_differences(len(cells))
        first, second = np.triu_indices(len(cells), 1)
        sides = (self.simulated_judge, self.human_judge)
        values, ps = [], []
        for role, contrasts in zip(sides, self._columns(found, cells), strict=True):
            value, error, degrees = found.measures[role].contrasts(differences @ contrasts)
            values.append(value)
            ps.append(p_values(value, error, degrees))
        adjusted = [holm(p) for p in ps]
        rows = []
        for k in np.flatnonzero(values[0] * values[1] < 0):
            better, worse = (first[k], second[k]) if values[0][k] > 0 else (second[k], first[k])
            sign = 1.0 if values[0][k] > 0 else -1.0
            rows.append(
                {
                    "first": cells[better][0],
                    "second": cells[worse][0],
                    "simulated_difference": 100 * sign * values[0][k],
                    "simulated_p": ps[0][k],
                    "human_difference": 100 * sign * values[1][k],
                    "human_p": ps[1][k],
                    "clear": bool(adjusted[0][k] < 0.05 and adjusted[1][k] < 0.05),
                }
            )
        names = ["first", "second", "simulated_difference", "simulated_p", "human_difference", "human_p", "clear"]
        return pd.DataFrame(rows, columns=names)

    def _costs(self, replication: Replication) -> pd.DataFrame:
        """Labels and prices, of every label once: replicates and arms share what they share."""
        training: dict[str, list[pd.DataFrame]] = {self.simulated: [], self.human: []}
        judged: dict[str, list[pd.DataFrame]] = {self.simulated_judge: [], self.human_judge: []}
        keys = [c for c in replication.variants.columns if c not in ("variant", "seed")]
        for row, folder in zip(replication.variants.to_dict(orient="records"), replication.folders, strict=True):
            arm, tables = str(row[keys[0]]), folder / "tables"
            if (tables / "preferences.parquet").is_file():
                training[arm].append(run_tables.read(tables / "preferences.parquet"))
            role = self.simulated_judge if arm == self.simulated else self.human_judge
            judged[role].append(run_tables.read(tables / f"judge_{role}.parquet"))
        rows = []
        for purpose, simulated, human in (
            ("training", training[self.simulated], training[self.human]),
            ("evaluation", judged[self.simulated_judge], judged[self.human_judge]),
        ):
            for kind, tables_of in (("simulated", simulated), ("human", human)):
                labels = sum(len(t) for t in tables_of)
                price = float(sum(t["price"].sum() for t in tables_of)) if kind == "simulated" else HUMAN_PRICE * labels
                people = HUMAN_PRICE * labels
                cheap, dear = PUBLISHED_PRICES[purpose]
                rows.append(
                    {
                        "feedback": kind,
                        "purpose": purpose,
                        "labels": labels,
                        "price": price,
                        "price_of_people": people,
                        "ratio": people / price if price > 0 else None,
                        "published_price": cheap if kind == "simulated" else dear,
                        "published_ratio": dear / cheap if kind == "simulated" else 1.0,
                    }
                )
        return pd.DataFrame(rows)


def headline(summary: pd.DataFrame) -> str:
    """What the validation comes to, in a few sentences."""
    row = summary.iloc[0]

    def shown(name: str) -> str:
        return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"

    said = (
        f"The ranking in simulation against the ranking with people, {row['n_methods']} methods: Spearman "
        f"{shown('spearman')}, R2 {shown('r_squared')}"
    )
    if np.isfinite(most := row["expected_spearman"]):
        said += f". Two looks at one and the same ranking, as noisy as these, would agree to {most:.3f}"
    return f"{said}. AlpacaFarm found {PUBLISHED_SPEARMAN:.2f} and {PUBLISHED_R_SQUARED:.2f} for its ten methods."


def published() -> pd.DataFrame:
    """The paper's ten methods with both numbers; intervals of 1.96 standard errors."""
    rows = [
        (m, name, s, se, h, he) for m, (name, s, se, h, he) in PUBLISHED.items() if h is not None and he is not None
    ]
    rows += [(name, name, *numbers) for name, numbers in PUBLISHED_ONLY.items()]
    table = pd.DataFrame(rows, columns=["method", "published_as", "simulated", "se", "human", "he"])
    for side, error in (("simulated", "se"), ("human", "he")):
        table[f"{side}_low"], table[f"{side}_high"] = (table[side] + z * table[error] for z in (-1.96, 1.96))
    return table.drop(columns=["se", "he"]).sort_values("human", ascending=False, ignore_index=True)


def expected_spearman(x: Floats, y: Floats, x_error: Floats, y_error: Floats, rounds: int, seed: int) -> float:
    """The mean Spearman correlation of two noisy looks at one and the same order.

    The common truth is the mean of both sides, each standardised and shrunk to the spread that its errors leave it;
    either side is then drawn around it with its own standard errors. NaN where a side has no spread beyond its errors.
    """
    kept = ~(np.isnan(x) | np.isnan(y) | np.isnan(x_error) | np.isnan(y_error))
    a, b, ea, eb = x[kept], y[kept], x_error[kept], y_error[kept]
    true_spread = [
        np.sqrt(max(v.var(ddof=1) - np.mean(e**2), 0.0)) if v.size > 2 else 0.0 for v, e in ((a, ea), (b, eb))
    ]
    if min(true_spread) <= 0:
        return float("nan")
    common = (a - a.mean()) / a.std(ddof=1) + (b - b.mean()) / b.std(ddof=1)
    common = common / common.std(ddof=1)
    noise = rng.generator(seed, "expected spearman").standard_normal((2, rounds, a.size))
    first = true_spread[0] * common + ea * noise[0]
    second = true_spread[1] * common + eb * noise[1]
    return float(np.nanmean(ranking.spearman(first, second)))
