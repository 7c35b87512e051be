"""What the run took: seconds of every stage, memory, and what people would have cost."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from eval.report import wording
from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Palette, Table

KINDS = ("learning", "answers", "judging")


def section(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """Stages by method: learning, answering, being judged; the shared stages above them."""
    stages = [s for s in run.costs.get("stages", []) if isinstance(s, dict) and wording.known(s.get("seconds"))]
    if not stages:
        return {"missing": "There are no stage times in this run folder (costs.json)."}
    shared: list[dict[str, Any]] = []
    by_method: dict[str, dict[str, float]] = {}
    for stage in stages:
        method, kind = _belongs(str(stage.get("stage", "")), run)
        if method is None:
            shared.append(stage)
        else:
            times = by_method.setdefault(method, {})
            times[kind] = times.get(kind, 0.0) + float(stage["seconds"])
    total = sum(float(s["seconds"]) for s in stages)
    longest = max([float(s["seconds"]) for s in shared] + [sum(t.values()) for t in by_method.values()], default=1.0)
    columns = [
        Column("Stage", numeric=False),
        Column("Learning"),
        Column("Answers"),
        Column("Judging"),
        Column("Total"),
    ]
    table = Table("Time of the stages", [*columns, Column("", numeric=False)], sortable=False)
    for stage in shared:
        name, seconds = str(stage.get("stage", "")), float(stage["seconds"])
        table.rows.append(
            [Cell(name), Cell(), Cell(), Cell(), Cell(wording.duration(seconds)), _bar(seconds, longest, "base")]
        )
    for method in [m for m in run.methods if m in by_method]:
        times = by_method[method]
        cells = [Cell(method, colour=palette.colour(method))]
        cells += [Cell(wording.duration(times[kind]) if kind in times else "") for kind in KINDS]
        seconds = sum(times.values())
        table.rows.append([*cells, Cell(wording.duration(seconds)), _bar(seconds, longest, palette.colour(method))])
    reused = sum(bool(s.get("found")) for s in stages)
    return {
        "table": table,
        "total": wording.duration(total),
        "stages": len(stages),
        "reused": reused,
        "memory": f"{wording.number(run.costs.get('peak_memory_gib'), 1)}{wording.THIN}GiB"
        if wording.known(run.costs.get("peak_memory_gib"))
        else "",
    }


def _bar(seconds: float, longest: float, colour: str) -> Cell:
    width = 100 * seconds / max(longest, 1e-9)
    return Cell(drawing=Markup('<span class="meter {}" style="width:{:.1f}%"></span>').format(colour, width))


def _belongs(stage: str, run: RunFolder) -> tuple[str | None, str]:
    """The method that a stage worked for, and at what; None for a stage that several methods share."""
    if stage in run.methods:
        return stage, "learning"
    if stage.removesuffix(" answers") in run.methods:
        return stage.removesuffix(" answers"), "answers"
    judged = stage.rpartition(" judges ")[2]
    return (judged, "judging") if judged in run.methods and " judges " in stage else (None, "")


def totals(run: RunFolder) -> dict[str, float]:
    """Seconds, annotations, their price, and the price of people, over the whole run."""
    annotations = [a for a in run.costs.get("annotations", []) if isinstance(a, dict)]
    stages = [s for s in run.costs.get("stages", []) if isinstance(s, dict)]
    keys = {"annotations": "annotations", "price": "price", "price_of_people": "people"}
    found = {name: float(sum(a[k] for a in annotations if wording.known(a.get(k)))) for k, name in keys.items()}
    return {**found, "seconds": float(sum(s["seconds"] for s in stages if wording.known(s.get("seconds"))))}
