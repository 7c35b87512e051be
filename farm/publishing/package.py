"""What `farm push` sends: a set of feedback, the tables of a run, or one of its models, with a card.

package(source, place)      the files in a folder of ours, ready to be looked at
push(...)                   the same on the hub, where the user says so
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from farm.base.errors import UserError
from farm.experiments import run_tables
from farm.policies import DESCRIPTOR
from farm.publishing import cards, facts
from farm.tables import feedback_sets, formats, hub
from farm.tables.table_files import write_table

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
CARD = "README.md"


@dataclass(frozen=True)
class Package:
    """A folder that is ready to be pushed."""

    kind: hub.Kind
    folder: Path
    card: str

    @property
    def files(self) -> dict[str, int]:
        """Every file and its size in bytes."""
        found = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in found}


def push(
    source: str | Path, repository: str, *, license_name: str | None = None, public: bool = False, yes: bool = False
) -> dict[str, Any]:
    """Make the package of a source and, with ``yes`` alone, push it.

    Returns:
        kind, repository, public, files (name -> bytes), card, and the address, None where nothing was pushed.

    Raises:
        UserError: for a source that is nothing to push, a name that is no repository's, or a hub that refuses.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository}: no name of a repository; say OWNER/NAME, as the hub does")
    if license_name is not None and not _LICENSE.fullmatch(license_name):
        raise UserError(f"{license_name}: no name of a licence; say it as the hub does, such as apache-2.0")
    with tempfile.TemporaryDirectory(prefix="farm-push-") as place:
        made = package(Path(source), Path(place), license_name)
        card = made.card.replace("OWNER/NAME", repository)
        (made.folder / CARD).write_text(card, encoding="utf-8")
        address = None
        if yes:
            address = hub.push(repository, made.kind, made.folder, f"from {cards.MADE_WITH}", private=not public)
        about = {"kind": made.kind, "repository": repository, "public": public}
        return {**about, "files": made.files, "card": card, "address": address}


def package(source: Path, place: Path, license_name: str | None = None) -> Package:
    """The files of a source in the folder ``place``, but for the card, which is given."""
    if (source / DESCRIPTOR).is_file():
        return _model(source, place, license_name)
    if source.is_dir():
        return _run(source, place, license_name)
    return _file(source, place, license_name)


def _model(source: Path, place: Path, license_name: str | None) -> Package:
    from farm.publishing.checkpoint import export  # imports torch

    made, above = export(source, place), source.resolve().parent
    of_run = above.name == "checkpoints" and (above.parent / "config.yaml").is_file()
    known = facts.of_run(above.parent) if of_run else None
    title = f"{known.name}, {source.name}" if known else source.name
    card = cards.model(title, made.what, made.opens, made.shift, known, source.name, license_name)
    return Package("model", place, card)


def _run(source: Path, place: Path, license_name: str | None) -> Package:
    """The tables of a run: feedback, answers and verdicts, and of its pairs the form that trainers take."""
    run, tables, files, notes = facts.of_run(source), {}, {}, []
    found = sorted((source / "tables").glob("*.parquet"))
    if not found:
        raise UserError(f"{source}: a run without tables; push a run that has ended, or one of its checkpoints")
    for path in found:
        table = run_tables.read(path)
        table = table.drop(columns=[c for c in table.columns if _internal(c)])
        name = "annotations" if path.stem == "preferences" else path.stem
        files[name], tables[name] = f"{name}.parquet", (_about(name), facts.answers(table))
        write_table(table, place / files[name])
        if path.stem == "preferences":
            formats.require(table, ["instruction", "output_1", "output_2"], str(path))
            trained = _preferences(table)
            if len(trained):
                notes = facts.agreements(table)
                files["preferences"] = "preferences.jsonl"
                tables["preferences"] = ("the same as `prompt, chosen, rejected`, ties left out", f"{len(trained):,}")
                write_table(trained, place / files["preferences"])
    default = "preferences" if "preferences" in files else next(iter(files))
    return Package("dataset", place, cards.data_set(run.name, tables, files, default, notes, run, license_name))


def _internal(column: str) -> bool:
    return column.startswith(("prompt_tokens", "response_tokens", "log_probabilities"))


def _preferences(table: pd.DataFrame) -> pd.DataFrame:
    plain = formats.as_conversations if "turns" in table.columns else formats.as_chosen_and_rejected
    return plain(table[table["preference"].notna()].reset_index(drop=True))


def _about(name: str) -> str:
    if name == "annotations":
        return "annotated training pairs, in AlpacaEval's form"
    if name == "outputs":
        return "answers of all methods to held-out instructions"
    if name.startswith("judge_"):
        return f"verdicts of the judge {cards.span(name.removeprefix('judge_'))} on the answers"
    return {"dialogues": "dialogues with held-out users", "accuracy": "how often each model agrees with whom"}.get(
        name, f"training feedback: {cards.line(name)}"
    )


def _file(source: Path, place: Path, license_name: str | None) -> Package:
    """A set of feedback as it is, with what its table says."""
    found = feedback_sets.read(source)
    name = source.name if source.suffix != ".xlsx" else f"{source.stem}.parquet"
    if name == source.name:
        shutil.copyfile(source, place / name)
    else:
        write_table(found.table, place / name)
    named = set(map(str, found.table["annotator"])) if "annotator" in found.table.columns else set()
    who = sorted(named - {source.stem})  # which stands where the file names nobody
    number = f"{len(who):,} annotator{'s' * (len(who) > 1)}"
    notes = [f"Given by {number}: {', '.join(map(cards.line, who[:10]))}{', ...' * (len(who) > 10)}."]
    notes = (notes if who else []) + (facts.agreements(found.table) if found.kind == "pairs" else [])
    if "price" in found.table.columns and pd.api.types.is_numeric_dtype(found.table["price"]):
        notes.append(f"It cost ${float(found.table['price'].sum()):.2f}.")
    tables = {"default": (f"{found.kind}, format `{found.format}`", facts.answers(found.table))}
    card = cards.data_set(source.stem, tables, {"default": name}, "default", notes, None, license_name)
    return Package("dataset", place, card)
