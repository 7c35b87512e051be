"""The options of the evaluation commands, as the command line, Python and what they do share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le

from farm.asking.limits import AskingOptions
from farm.base.bounds import Confidence, Count, ErrorRate, Natural, NotNegative, Positive, Several, Share
from farm.face.options import Flag, Listed, Repeated

if TYPE_CHECKING:
    import pandas as pd

    Table: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]] | Sequence[Path] | str | Path
else:
    Table = Any

Style = Literal["length", "headers", "lists", "bold"]
Metric = Literal["win_rate", "length_controlled", "bradley_terry", "elo"]


@dataclass(frozen=True, kw_only=True)
class BootstrapOptions:
    seed: int = 0
    """The seed of every bootstrap."""
    confidence: Annotated[float, Ge(0.5), Le(0.9999)] = 0.95
    """Confidence level of every interval."""


@dataclass(frozen=True, kw_only=True)
class PeopleOptions:
    pool: bool = False
    """Take all annotators for one: each vote counts, and those on one item err together."""
    item: Annotated[tuple[str, ...], Listed(), Flag(kind=str)] = ()
    """Columns that name what was judged, where no instruction or id does; several with commas."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AskingOptions, PeopleOptions, BootstrapOptions):
    rows: Annotated[Table, Flag(argument=True, metavar="FILES...", kind=list[Path])] = field(kw_only=False)
    """Annotation files, model outputs (with --judge and --baseline), or a run folder."""
    judge: str | None = None
    """Who judges the outputs: a named annotator or a YAML file."""
    baseline: Annotated[Table | None, Flag(kind=Path)] = None
    """Outputs of the baseline, for model outputs; of annotations the generator that the others are compared with."""
    annotations: Path | None = None
    """Keep the judge's annotations here."""
    store: Path | None = None
    """Where verdicts are kept, so that none is paid twice; default: FARM_HOME."""
    fresh: bool = False
    """Ask for every verdict anew, and store none."""
    human: Annotated[Table | None, Flag(kind=Path)] = None
    """Human annotations of some of the pairs: PPI++, and biases as judge minus human."""
    flip_rate: ErrorRate = 0.0
    """Correct for this share of flipped labels."""
    flip_rate_standard_error: Annotated[NotNegative, Flag("--flip-rate-error")] = 0.0
    """Standard error of the flip rate."""
    by: str = "dataset"
    """Column to tabulate separately where the files have it."""
    judge_settings: Annotated[Repeated, Flag("--set", metavar="A.B=C")] = ()
    """Change a setting of the judge."""


@dataclass(frozen=True, kw_only=True)
class LeaderboardOptions(PeopleOptions, BootstrapOptions):
    sources: Annotated[Any, Flag(argument=True, metavar="SOURCE...", kind=list[str])] = field(kw_only=False)
    """Results directory (<model>/<annotator>/annotations.json), annotation files, battles files (model_a, model_b,
    winner), or alpaca_eval_1 / alpaca_eval_2 to fetch."""
    annotator: str | None = None
    """Keep the verdicts of this annotator."""
    baseline: str | None = None
    """Keep the comparisons with this baseline."""
    published: Path | None = None
    """A published leaderboard to compare with, row by row."""
    metrics: Annotated[tuple[Metric, ...], Listed(), Flag(kind=str)] = ()
    """win_rate, length_controlled, bradley_terry, elo; several with commas."""
    difficulty: Path | None = None
    """Difficulties of the instructions, for length control."""
    regularizer: Path | None = None
    """Rows of the gamed baseline, for length control."""
    weights: Path | None = None
    """Saved coefficients to predict from instead of a fit."""
    lc_recipe: Literal["newton", "published"] = "newton"
    """newton (default) or published (L1 path, grouped folds)."""
    lc_alignment: Literal["instruction", "position"] = "instruction"
    """instruction (default) or position (as the original)."""
    lc_over: Literal["judged", "all"] = "judged"
    """Average over the judged instructions (default) or all with a difficulty: judged, all."""
    ties: Literal["half", "drop", "davidson"] = "half"
    """Bradley-Terry: half, drop or davidson."""
    cluster: Repeated = ()
    """Battles: column whose rows err together; at most two."""
    prior: NotNegative = 0.0
    """Bradley-Terry: virtual games of each model."""
    style: Annotated[tuple[Style, ...], Listed(), Flag(kind=str)] = ()
    """Bradley-Terry at equal style: length, headers, lists, bold; several with commas."""
    anchor: str = ""
    """Bradley-Terry: the model that keeps the rating 1000."""
    rounds: Count = 2000
    """Bootstrap rounds."""
    offline: bool = False
    """Fetch nothing."""


@dataclass(frozen=True, kw_only=True)
class BoardsOptions:
    names: Annotated[tuple[str, ...], Listed(), Flag(argument=True, metavar="NAME...", kind=list[str])] = field(
        default=(), kw_only=False
    )
    """Published boards to fetch and make again, or `all`; without a name they are listed."""
    offline: bool = False
    """Fetch nothing: use what is in the cache."""


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(PeopleOptions, BootstrapOptions):
    judge: Annotated[Table, Flag(argument=True, metavar="JUDGE_ANNOTATIONS", kind=Path)] = field(kw_only=False)
    """Verdicts of the judge, one or more a pair."""
    human: Annotated[Table | None, Flag(kind=Path)] = field(default=None, kw_only=False)
    """Votes of humans on the same pairs (cross-annotations), in any known layout."""
    annotator: str | None = None
    """Keep the verdicts of this annotator."""
    pool: bool = False
    """Take all annotators of the judge's file for one."""
    pairs: Path | None = None
    """Texts of the pairs by `pair_id`, where the verdicts have only the ids."""
    export: Path | None = None
    """Also write all votes here as annotated pairs 2.0 (.json; needs the texts)."""
    by: Annotated[tuple[str, ...], Listed(), Flag(kind=str)] = ()
    """Judge runs with a `human_label` beside each verdict: columns that tell runs apart."""
    rounds: Count = 1000
    """Bootstrap rounds."""


@dataclass(frozen=True, kw_only=True)
class BiasOptions(AskingOptions, BootstrapOptions):
    outputs: Annotated[Table, Flag(argument=True, kind=Path)] = field(kw_only=False)
    """Model outputs (instruction, output), which are edited."""
    judge: str | None = None
    """Whose bias is looked for: a named annotator or a YAML file."""
    baseline: Annotated[Table | None, Flag(kind=Path)] = None
    """Outputs that they are compared with; by default the outputs as they are, before they were edited."""
    edits: Annotated[tuple[str, ...], Listed(), Flag(kind=str)] = ()
    """padding, praise, list, plain, order; several with commas, all by default."""
    unbiased: str | None = None
    """An annotator who is taken as unbiased: what an edit changes for them is subtracted."""
    store: Path | None = None
    """Where verdicts are kept, so that none is paid twice; default: FARM_HOME."""
    judge_settings: Annotated[Repeated, Flag("--set", metavar="A.B=C")] = ()
    """Change a setting of the judge."""


@dataclass(frozen=True, kw_only=True)
class PowerOptions:
    difference: float | None = field(default=None, kw_only=False)
    """Difference of win rates to find, in percent points (against 50, or of two methods)."""
    annotations: Several | None = None
    """Number of annotations: print the smallest difference that it shows."""
    flip_rate: ErrorRate = 0.0
    """Share of labels that are flipped."""
    design_effect: Annotated[float, Ge(1)] = 1.0
    """Factor by which clustering multiplies the variance."""
    per_cluster: Annotated[float, Ge(1)] | None = None
    """Rows a cluster (with --icc, instead of --design-effect)."""
    icc: Share = 0.0
    """Correlation of the rows of a cluster."""
    paired: bool = False
    """Compare two methods on the same instructions."""
    variance: Positive | None = None
    """Variance of one score (paired: of one difference), where known."""
    power: Confidence = 0.8
    """Chance of finding the difference."""
    significance: Confidence = 0.05
    """Significance level of the two-sided test."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    first: Annotated[Path, Flag(argument=True, metavar="RUN")] = field(kw_only=False)
    """A run folder."""
    second: Annotated[Path, Flag(argument=True, metavar="RUN")] = field(kw_only=False)
    """Another one."""
    out: Path | None = None
    """Where the page goes (.html); the command's default: compare-FIRST-SECOND.html in this folder."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    run: Annotated[Path, Flag(argument=True)] = field(kw_only=False)
    """A run folder, as `farm run` left it."""
    examples: Natural | None = field(default=None, kw_only=False)
    """Examples to show; default: as the run's configuration says."""
