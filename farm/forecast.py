"""What a run would do: its stages done and to do, the verdicts it would ask for, and what they take and cost.

Seconds and prices come from earlier stages like them (farm.estimate); where there is none, that is said, not guessed.
"""

from __future__ import annotations

from typing import Any

from farm.errors import UserError
from farm.estimate import Estimator, duration, total
from farm.experiment import KINDS
from farm.running import Undertaking


def foresee(undertaking: Undertaking, workers: int) -> dict[str, Any]:
    """Plain data for ``farm run --dry-run --json``; nothing is made."""
    absent = None
    try:
        graph = undertaking.graph()
    except UserError as error:  # the data are not here yet: the stages are known all the same, and none of them is done
        absent = str(error)
        for plan in undertaking.plans:
            plan.without_texts()
        graph = undertaking.graph()
    again = undertaking.again(graph)
    artifacts = undertaking.plans[0].artifacts
    estimator = Estimator(artifacts.timings())
    rows: list[dict[str, Any]] = []
    for key, node in graph.items():
        done = key not in again and artifacts.done(node.name, key)
        estimate = estimator(node)
        rows.append(
            {
                "stage": node.name,
                "kind": node.kind,
                "seed": node.facts.get("seed"),
                "done": done,
                "verdicts": node.units if node.kind in ("annotation", "judgement") else 0,
                "seconds": None if done else estimate.seconds,
                "price": None if done else estimate.price,
                "gpu": estimate.gpu or node.gpus > 0,
            }
        )
    ahead = [row for row in rows if not row["done"]]
    seconds, unknown = total(row["seconds"] for row in ahead)
    gpu_seconds, _ = total(row["seconds"] for row in ahead if row["gpu"])
    asked = [row for row in ahead if row["verdicts"]]
    price, unpriced = total(row["price"] for row in asked)
    return {
        "run": str(undertaking.folder),
        "variants": len(undertaking.plans),
        "absent": absent,
        "stages": rows,
        "done": len(rows) - len(ahead),
        "to_do": len(ahead),
        "verdicts": sum(row["verdicts"] for row in ahead),
        "price": price,
        "verdicts_without_a_price": sum(row["verdicts"] for row in asked if row["price"] is None),
        "stages_without_a_price": unpriced,
        "seconds": seconds,
        "stages_without_a_time": unknown,
        "gpu_hours": gpu_seconds / 3600,
        "workers": workers,
    }


def text(foreseen: dict[str, Any]) -> str:
    """What `farm run --dry-run` prints."""
    rows = foreseen["stages"]
    out = [f"{'stage':<16}{'done':>8}{'to do':>8}{'verdicts':>12}{'time':>12}{'price':>12}"]
    for kind in KINDS:
        of = [row for row in rows if row["kind"] == kind]
        if not of:
            continue
        ahead = [row for row in of if not row["done"]]
        verdicts = sum(row["verdicts"] for row in ahead)
        asked = [row for row in ahead if row["verdicts"]]
        out.append(
            f"{kind:<16}{len(of) - len(ahead):>8,}{len(ahead):>8,}{verdicts or '':>12}"
            f"{_known(ahead, 'seconds', duration):>12}{_known(asked, 'price', '${:,.2f}'.format):>12}"
        )
    for row in rows if len(rows) <= 60 else ():
        state = "done" if row["done"] else "to do"
        took = "" if row["done"] else " ?" if row["seconds"] is None else f" {duration(row['seconds'])}"
        out.append(f"  {state:<6}{row['stage']:<40}{took}")
    if foreseen["absent"]:
        out.append(f"Nothing can be done before this is: {foreseen['absent']}")
    variants = f"{foreseen['variants']} variant{'s' * (foreseen['variants'] > 1)}"
    out.append(f"{foreseen['done']} stages are done and {foreseen['to_do']} to do, in {variants}.")
    price = f"${foreseen['price']:,.2f}"
    out.append(f"Verdicts to ask for: at most {foreseen['verdicts']:,}, for about {price}" + _unpriced(foreseen))
    out.append(_time(foreseen))
    return "\n".join(out)


def _known(rows: list[dict[str, Any]], column: str, shown: Any) -> str:
    if not rows:
        return ""
    value, unknown = total(row[column] for row in rows)
    if unknown == len(rows):
        return "?"
    return str(shown(value)) + (" + ?" if unknown else "")


def _unpriced(foreseen: dict[str, Any]) -> str:
    if n := foreseen["verdicts_without_a_price"]:
        return f"; of {n:,} the price is not known before such an annotator has been asked once."
    return "."


def _time(foreseen: dict[str, Any]) -> str:
    known = foreseen["to_do"] - foreseen["stages_without_a_time"]
    if not foreseen["to_do"]:
        return "Only the tables and the report are made again."
    if not known:
        return "No stage like these is on record yet, so the time is not known."
    spread = f", {duration(foreseen['seconds'] / foreseen['workers'])} with {foreseen['workers']} workers"
    gpu = f" ({foreseen['gpu_hours']:.1f} GPU hours)" if foreseen["gpu_hours"] else ""
    unknown = foreseen["stages_without_a_time"]
    rest = f"; {unknown} stages are like none on record" if unknown else ""
    alone = f"Time, by earlier stages like them: {duration(foreseen['seconds'])}{gpu}"
    return alone + (spread if foreseen["workers"] > 1 else "") + rest + "."
