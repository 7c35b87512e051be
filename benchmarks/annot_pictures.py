"""The pictures of docs/annotators.md: what each noise model does, asked of the annotators themselves.

python -m benchmarks.annot_pictures [--out docs/annotators] [--pairs 3000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.feedback.ratings import PersonRater
from annotators.feedback.reactions import PersonReactor
from annotators.noise.ability import Ability
from annotators.noise.both_orders import BothOrders
from annotators.noise.confusion import Confusion
from annotators.noise.difficulty import Difficulty
from annotators.noise.expertise import Expertise
from annotators.noise.fatigue import Fatigue
from annotators.noise.flip import Flip
from annotators.noise.lapse import Lapse
from annotators.noise.observation import Observed
from annotators.noise.tie_band import TieBand
from annotators.people.logit import LogitAnnotator
from eval.report.charts import Axis, Curve, plot
from farm.roles.protocols import Annotator

Floats = NDArray[np.float64]
GRID = np.linspace(-4, 4, 33)
COLOURS = ("#1f6fb4", "#c4572a", "#4b8b3b", "#777777")


@dataclass(frozen=True)
class Line:
    """One curve. The grey dashed one is for comparison."""

    name: str
    x: Floats
    y: Floats
    dashed: bool = False


@dataclass(frozen=True)
class Numbers:
    """A text is a number of a feature: "u v length" separated by blanks."""

    names: tuple[str, ...] = ("u", "length", "lists")

    @property
    def gold_weights(self) -> dict[str, float]:
        return {"u": 1.0}

    def __call__(self, instructions: Sequence[str], outputs: Sequence[str]) -> pd.DataFrame:  # noqa: ARG002
        values = [[float(v) for v in text.split()] for text in outputs]
        return pd.DataFrame(values, columns=list(self.names))


FEATURES = Numbers()


def pairs_of(u: Floats, length: Floats | float = 0.0, n: int = 3000) -> pd.DataFrame:
    """n pairs at each point: the first output has utility u and so many words more than the second, of utility 0."""
    first = np.repeat(u, n)
    more = np.repeat(np.broadcast_to(np.asarray(length, float), u.shape), n)
    return pd.DataFrame({
        "instruction": [f"x {i}" for i in range(len(first))],
        "output_1": [f"{a} {b} 0" for a, b in zip(first, more + 100, strict=True)], "output_2": "0.0 100.0 0.0",
    })  # fmt: skip


def shares(annotator: Annotator, table: pd.DataFrame, n: int, of: Callable[[Floats], Floats], replicate: int = 0
           ) -> Floats:  # fmt: skip
    said = annotator.annotate(table, seed=0, replicate=replicate)["preference"].to_numpy(np.float64)
    return np.nanmean(of(said).reshape(-1, n), axis=1)


def first(said: Floats) -> Floats:
    return np.where(np.isnan(said), np.nan, 2 - said)


def tie(said: Floats) -> Floats:
    return np.where(np.isnan(said), np.nan, said == 1.5)


def person(**settings: object) -> LogitAnnotator:
    return LogitAnnotator(FEATURES, name="person", **settings)  # type: ignore[arg-type]


def pictures(n: int) -> dict[str, tuple[list[Line], str, str]]:
    """name -> (lines, x axis, y axis)."""
    plain = pairs_of(GRID, n=n)
    exact = Line("no noise but taste", GRID, 1 / (1 + np.exp(-GRID)), dashed=True)
    oracle = person(greedy=True)

    def curve(name: str, annotator: Annotator, table: pd.DataFrame = plain, of: Callable[..., Floats] = first) -> Line:
        return Line(name, GRID, shares(annotator, table, n, of))

    by_u = ("utility of the first minus the second", "P(first)")
    back = plain.rename(columns={"output_1": "output_2", "output_2": "output_1"})
    biased = person(position_bias=1.0)
    shown_second = Line("shown second", GRID, 1 - shares(biased, back, n, first))
    words = np.linspace(-60, 60, 33)
    longer = pairs_of(np.zeros(33), words, n=n)
    lengths = [
        Line(s, words, shares(person(length_bias=1.5, length_shape=s), longer, n, first)) for s in ("tanh", "log")
    ]
    topics = {t: Expertise(oracle, {"code": 0.05, "law": 0.35}) for t in ("code", "law")}
    out: dict[str, tuple[list[Line], str, str]] = {
        "temperature": ([exact, *(curve(f"T = {t}", person(temperature=t)) for t in (0.3, 3.0))], *by_u),
        "probit": ([exact, curve("probit", person(link="probit"))], *by_u),
        "flip": ([exact, curve("flip .25", Flip(person(), 0.25)), curve("adversary .8", Flip(oracle, 0.8))], *by_u),
        "lapse": ([exact, curve("lapse .3", Lapse(person(), 0.3))], *by_u),
        "difficulty": (_splits(n), "votes for the first of five", "share of pairs"),
        "position": (
            [exact, curve("shown first", biased), shown_second, curve("both orders", BothOrders(biased))], *by_u
        ),
        "length": (lengths, "words more than the second", "P(first)"),
        "ties": ([
            curve("band", TieBand(person(), 0.5), of=tie),
            curve("Rao and Kupper", person(ties="rao-kupper", tie_width=0.5), of=tie),
            curve("Davidson", person(ties="davidson", tie_width=0.5), of=tie),
        ], by_u[0], "P(tie)"),
        "confusion": ([exact, curve("(.9 .1), (.3 .7)", Confusion(person(), [[0.9, 0.1], [0.3, 0.7]]))], *by_u),
        "ability": ([
            Line(f"ability {a:g}", np.arange(1.0, 34), np.sort(_right(Ability(oracle, a, name=str(a)), n)))
            for a in (3.0, 1.0, -1.0)
        ], "pairs, sorted", "P(right)"),
        "fatigue": (_fatigue(oracle, n), "place in the session", "P(right)"),
        "drift": (_drift(n), "replicates between", "agreement with oneself"),
        "expertise": ([curve(t, a, plain.assign(topic=t)) for t, a in topics.items()], *by_u),
        "observed": (_observed(n), by_u[0], "P(observed)"),
        "ratings": (_ratings(n), "utility", "mean rating"),
        "reactions": (_reactions(n), "utility", "share"),
    }  # fmt: skip
    return out


def _splits(n: int) -> list[Line]:
    """Five votes a pair, by a constant flip and by a difficulty that give the same agreement of two votes."""
    table = pairs_of(np.array([4.0]), n=4 * n)
    k = np.arange(6.0)
    found = []
    sure = person(greedy=True)
    for name, annotator in (("flip .141", Flip(sure, 0.141)), ("difficulty 2.98", Difficulty(sure, 2.98))):
        votes = sum(2 - annotator.annotate(table, seed=0, replicate=r)["preference"].to_numpy() for r in range(5))
        share = np.bincount(votes.astype(int), minlength=6) / len(table)
        found.append(Line(name, k, (share + share[::-1]) / 2))
    found.append(Line("people (UKPConvArg)", k, np.array([0.258, 0.134, 0.099, 0.100, 0.141, 0.268]), dashed=True))
    return found


def _right(annotator: Annotator, n: int) -> Floats:
    table = pairs_of(np.array([4.0]), n=33 * 8)
    votes = np.mean([2 - annotator.annotate(table, seed=0, replicate=r)["preference"] for r in range(n // 40)], axis=0)
    return np.sort(votes).reshape(33, 8).mean(axis=1)


def _fatigue(oracle: Annotator, n: int) -> list[Line]:
    place = np.arange(0, 200, 10.0)
    table = pairs_of(np.full(20, 4.0), n=n).assign(place_in_session=np.repeat(place, n))
    return [
        Line(f"patience {p:g}", place, shares(Fatigue(oracle, tired=0.6, patience=p), table, n, first))
        for p in (80.0, 20.0)  # the higher first: so labels are placed
    ]


def _drift(n: int) -> list[Line]:
    table = pairs_of(np.zeros(1), n=2 * n).assign(output_2="0.0 99.0 0.0")
    found = []
    for keep in (1.0, 0.8, 0.4):
        who = person(opinion_spread=4.0, opinion_persistence=keep)
        said = [who.annotate(table, seed=0, replicate=r)["preference"].to_numpy() for r in range(7)]
        found.append(
            Line(f"persistence {keep:g}", np.arange(7.0)[1:], np.array([(said[0] == s).mean() for s in said[1:]]))
        )
    return found


def _observed(n: int) -> list[Line]:
    table = pairs_of(GRID, n=n)
    return [
        Line(name, GRID, (a.annotate(table, seed=0)["status"] == "ok").to_numpy(float).reshape(-1, n).mean(axis=1))
        for name, a in (
            ("clear cases", Observed(person(), base=-1.0, by_margin=1.0)),
            ("when the first wins", Observed(person(), base=-1.0, by_verdict=2.0)),
        )
    ]


def _ratings(n: int) -> list[Line]:
    outputs = pairs_of(GRID, n=n).rename(columns={"output_1": "output"})
    return [
        Line(f"noise {s:g}", GRID, PersonRater(FEATURES, noise=s).rate(outputs, seed=0)["score"].to_numpy()
             .reshape(-1, n).mean(axis=1))
        for s in (0.0, 2.0)
    ]  # fmt: skip


def _reactions(n: int) -> list[Line]:
    outputs = pairs_of(GRID, n=n).rename(columns={"output_1": "output"})
    table = PersonReactor(FEATURES, by_like=1.0).react(outputs, seed=0)
    seen = table["observed"].to_numpy(bool).reshape(-1, n)
    likes = (table["liked"] == True).to_numpy(bool).reshape(-1, n)  # noqa: E712
    return [Line("observed", GRID, seen.mean(axis=1)), Line("liked, of those", GRID, likes.sum(1) / seen.sum(1))]


STYLE = """text { font: 10px sans-serif; fill: #333333 } rect { fill: #ffffff } .grid, .axis, .mark { stroke: #e4e4e4 }
.curve { fill: none; stroke-width: 1.6 } .dashed { stroke-dasharray: 4 3 } .leader { stroke-width: 0.8 }
.label { font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
""" + "".join(
    f".curve.m{k}, .leader.m{k} {{ stroke: {colour} }} .label.m{k} {{ fill: {colour} }}\n"
    for k, colour in enumerate(COLOURS)
)


def svg(name: str, lines: list[Line], across: str, up: str) -> str:
    """A chart as the report draws them, on white and with its colours in it."""
    colours = iter(range(len(COLOURS) - 1))
    curves = [
        Curve(
            line.x, line.y, f"m{len(COLOURS) - 1 if line.dashed else next(colours)}", "", line.name, dashed=line.dashed
        )
        for line in lines
    ]
    marks = (0.0, 7.0) if up == "mean rating" else (0.0, 1.0) if up.startswith(("P", "a")) else (0.0,)
    drawn = plot(name, f"{up} by {across}", Axis(across), Axis(up, marks), curves=curves, width=330, height=210)
    head, body = drawn.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%"/>{body}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/annotators"))
    parser.add_argument("--pairs", type=int, default=3000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (lines, across, up) in pictures(arguments.pairs).items():
        (arguments.out / f"{name}.svg").write_text(svg(name, lines, across, up), encoding="utf-8")


if __name__ == "__main__":
    main()
