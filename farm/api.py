"""The commands from Python: ``from farm import run, annotate, evaluate, leaderboard, report, ...``.

Every command has a function of its name, but two whose names are taken: `farm config` is :func:`configuration` and
`farm list` is :func:`configs`.

What belongs to a wing is announced by it through the entry points ``farm.api`` and imported when it is asked for, so
the ground imports no wing. A spec may be what it is in YAML, or a class: ``{"class": MyMethod, "steps": 10}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.base.errors import OptionError, UserError, nearest, shadowed
from farm.experiments import experiment
from farm.experiments.claims import paper as paper_files
from farm.experiments.claims.running import PaperRun, PaperRunner
from farm.experiments.running import Run, StudyRunner
from farm.face.command_options import CleanOptions, ConfigOptions, ConvertOptions, PushOptions, StatusOptions
from farm.face.options import takes
from farm.face.run_options import RunOptions
from farm.roles import config
from farm.roles.config import spec_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PaperRun",
    "Run",
    "clean",
    "configs",
    "configuration",
    "convert",
    "doctor",
    "dry_run",
    "named",
    "papers",
    "push",
    "run",
    "spec_of",
    "status",
]


@takes(RunOptions)
def run(options: RunOptions) -> Run | PaperRun:
    """Run an experiment or a paper (papers/NAME), or go on with it, as `farm run` does.

    An experiment may be a mapping of what its YAML would say, and ``settings`` ``{"sizes.pairs": 100}`` as well as
    ``["sizes.pairs=100"]``. Gives the run: ``folder``, ``leaderboard`` and other tables, ``failures``, ``report``; of a
    paper its ``claims``.
    """
    return runner(options).go(options.engine, options.workers, options.limits)


@takes(RunOptions)
def dry_run(options: RunOptions) -> dict[str, Any]:
    """What a run would do, as `farm run --dry-run --json`."""
    return foreseen(runner(options), options)


def runner(options: RunOptions) -> StudyRunner | PaperRunner:
    """What runs the experiment or the paper that the options name."""
    if isinstance(options.experiment, (str, Path)) and paper_files.is_paper(str(options.experiment)):
        if options.only is not None:
            raise OptionError("`only`: a paper needs all of its methods; change them in a copy of its file")
        planned = paper_files.load(str(options.experiment), _as_texts(options.settings), options.seed)
        return PaperRunner(planned, options.out, options.force)
    data, origin = _data(options.experiment, options.settings)
    study = experiment.from_mapping(data, origin, options.seed, options.only)
    return StudyRunner(study, options.out, options.force)


def foreseen(planned: StudyRunner | PaperRunner, options: RunOptions) -> dict[str, Any]:
    """What there is to do, and what it takes; of a paper by experiment."""
    from farm.forecasts.forecast import foresee

    if isinstance(planned, PaperRunner):
        return {name: foresee(one, options.workers or 1) for name, one in planned.runners.items()}
    return foresee(planned, options.workers or 1)


@takes(ConfigOptions)
def configuration(options: ConfigOptions) -> dict[str, Any]:
    """An experiment with every name followed and every default written out, as `farm config` prints it."""
    from farm.experiments import origins
    from farm.roles import named_configs

    plan, seed = options.experiment, options.seed
    if plan is None:
        raise OptionError("`experiment`: name an experiment (farm.configs('experiments') lists them)")
    data, origin = _data(plan, options.settings)
    study = experiment.from_mapping(data, origin, seed)
    written = {"name": data["name"]} if isinstance(plan, Mapping) else named_configs.load_mapping(Path(origin))
    said = origins.values(origins.tree(study, data, written, (), origin, seed))
    plain: dict[str, Any] = json.loads(json.dumps(said))  # a default that is a tuple is a list in YAML
    return plain


def configs(kind: str | None = None) -> pd.DataFrame:
    """What there is to use by name, as `farm list`: ``kind, name, about``."""
    import pandas as pd

    from farm.roles import named_configs

    rows = [(room, name, about) for room, found in named_configs.listed(kind).items() for name, about in found.items()]
    return pd.DataFrame(rows, columns=["kind", "name", "about"])


def papers() -> pd.DataFrame:
    """What papers claim, and what was seen of it here when they were last run, as `farm papers --json`."""
    import pandas as pd

    from farm.experiments.claims import recorded

    return pd.DataFrame(recorded.table(), columns=list(recorded.COLUMNS))


def doctor() -> dict[str, Any]:
    """What this machine has, as `farm doctor --json`."""
    from farm.hardware import machine

    return machine.facts()


@takes(StatusOptions)
def status(options: StatusOptions) -> dict[str, Any]:
    """How far a run has got, as `farm status --json`: ``state``, ``stages``, ``seconds_left``, ..."""
    from farm.experiments import run_status

    return run_status.read(options.run)


@takes(ConvertOptions)
def convert(options: ConvertOptions) -> pd.DataFrame:
    """A set of feedback in another format, as `farm convert` writes it; the source may be rows, too.

    A format whose rows are a table, which all but ``annotated_pairs`` are; ``renamed`` may be a mapping.
    """
    from farm.tables import feedback_sets, formats

    source = options.source
    if isinstance(source, (str, Path)):
        found = feedback_sets.read(source, options.renamed)
    else:
        found = feedback_sets.of_table(formats.rows(source, "source"), "source", options.renamed)
    to = options.to or found.format
    made, _ = feedback_sets.converted(found, to)
    if isinstance(made, dict):
        raise UserError(f"{to} are one document and no table: write them with `farm convert IN OUT.json --to {to}`")
    return made


@takes(PushOptions)
def push(options: PushOptions) -> dict[str, Any]:
    """A run's tables, one of its checkpoints, or a file of feedback on the hub, as `farm push`.

    Nothing is pushed without ``yes``. Gives ``kind``, ``files`` with their bytes, ``card`` and ``address``.
    """
    from farm.publishing import package

    return package.push(
        options.source, options.repository, license_name=options.license, public=options.public, yes=options.yes
    )


@takes(CleanOptions)
def clean(options: CleanOptions) -> pd.DataFrame:
    """Artifacts not used for so many days and leftovers of interruptions: ``path, what, bytes, days``.

    Nothing is removed unless ``yes``, and the answers of annotators never are.
    """
    import pandas as pd

    from farm.storage import old_artifacts
    from farm.storage.store import home

    found = old_artifacts.removable(home(), options.days)
    if options.yes:
        old_artifacts.remove(found)
    rows = [(str(item.path), item.what, item.size, item.days) for item in found]
    return pd.DataFrame(rows, columns=["path", "what", "bytes", "days"])


def _data(
    plan: str | Path | Mapping[str, Any], settings: Mapping[str, Any] | Sequence[str]
) -> tuple[dict[str, Any], str]:
    """What the YAML would say, settings included, and where it is from."""
    from farm.roles import named_configs

    if isinstance(plan, Mapping):
        data, origin = config.with_paths(dict(plan)), "the experiment"
        data.setdefault("name", "experiment")
    else:
        path = named_configs.find("experiments", str(plan))
        data, origin = {"name": path.stem, **named_configs.load_mapping(path)}, str(path)
    if not isinstance(settings, Mapping):
        return config.override(data, [settings] if isinstance(settings, str) else list(settings)), origin
    for key, value in settings.items():
        config.put(data, key, config.with_paths(value), "settings")
    return data, origin


def _as_texts(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Settings as `--set` takes them."""
    import json

    if isinstance(settings, str):
        return [settings]
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(config.with_paths(value))}" for key, value in settings.items()]
    return list(settings)


def named(name: str) -> Any:
    """A function of this module, or one that a wing announces.

    Raises:
        AttributeError: naming the nearest that there is.
    """
    if name in __all__:
        return globals()[name]
    for entry in entry_points(group="farm.api"):
        if entry.name == name:
            try:
                return entry.load()
            except (ImportError, AttributeError) as error:
                raise shadowed(entry.module) or error from error
    raise AttributeError(f"farm has no `{name}`; {nearest(name, names())}")


def names() -> list[str]:
    """The functions of this module, and those that the wings announce."""
    return [*__all__, *(entry.name for entry in entry_points(group="farm.api"))]
