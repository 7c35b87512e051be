"""The beginning of the report: what was compared and what came out, in sentences made from the tables."""

from __future__ import annotations

from typing import Any

from eval.report import expenses, leaderboard, wording
from eval.report.folder import BASELINE, RunFolder


def sentences(run: RunFolder) -> list[str]:
    """One plain paragraph."""
    said = [_compared(run)]
    if "win_rate" in run.leaderboard and len(run.leaderboard):
        said += [_first(run), *(str(text) for text in run.headlines.get("headline", [])), *_truth(run)]
        percent = wording.number(100 * run.confidence, 0 if abs(100 * run.confidence % 1) < 1e-9 else 1)
        said.append(
            f"Brackets are {percent}{wording.THIN}% intervals; answers to the same instruction count as dependent."
        )
    return [s for s in said if s]


def _compared(run: RunFolder) -> str:
    learned = [m for m in run.methods if m != BASELINE]
    if not learned:
        return "This run holds no comparison of methods."
    names = f" ({wording.listing(learned)})" if len(learned) <= 8 else ""
    said = f"{wording.spelt(len(learned)).capitalize()} method{'s' * (len(learned) > 1)}{names} learned"
    if len(run.preferences):
        said += f" from feedback on {wording.plural(len(run.preferences), 'pair')} of answers"
    said += f"; the {BASELINE} policy they started from is the baseline." if BASELINE in run.methods else "."
    if {"instruction", "method"} <= set(run.outputs.columns) and len(run.outputs):
        n = run.outputs["instruction"].nunique()
        each = round(len(run.outputs) / (n * run.outputs["method"].nunique()))
        times = f", {wording.count(each)} times each" if each > 1 else ""
        said += f" All answered the same {wording.plural(n, 'held-out instruction')}{times}."
    return said


def _win_rate(row: dict[str, Any], role: str = "judge", unit: str = "%") -> str:
    name = leaderboard.column_of(role)
    return wording.estimate(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"), 1, unit)


def _first(run: RunFolder) -> str:
    rows = list(run.board.values())
    best = rows[0]
    if best["method"] == BASELINE:
        return f"No method comes before the {BASELINE} baseline by the simulated judge."
    n = f" of {wording.count(best['n_total'])} comparisons" if wording.known(best.get("n_total")) else ""
    n += ", ties counting half" if n and best.get("n_draws") else ""
    said = f"{best['method']} comes first: the simulated judge prefers it to the baseline in {_win_rate(best)}{n}."
    if len(rows) < 2:
        return said
    second = rows[1]
    gap = _difference(run, str(best["method"]), str(second["method"]))
    if gap is None:
        return f"{said} {second['method']} follows with {_win_rate(second)}."
    value = wording.estimate(gap["difference"], gap.get("low"), gap.get("high"), 1)
    p = gap.get("p_max_t")
    if p is None or not wording.known(p):
        return f"{said} {second['method']} follows, {value} points behind."
    follows = f"{said} {second['method']} follows {value} points behind"
    if p < 1 - run.confidence:
        return f"{follows}, more than chance would explain."
    low, high = gap.get("low"), gap.get("high")
    if wording.known(low) and wording.known(high) and low * high > 0:  # type: ignore[operator]
        many = wording.count(len(run.pairwise))
        return (
            f"{follows}: more than chance would explain if these two alone were compared, but not among all {many} "
            f"differences together (p = {wording.number(p, 3)})."
        )
    return f"{follows}, which chance could explain."


def _difference(run: RunFolder, first: str, second: str) -> dict[str, Any] | None:
    if not {"first", "second", "difference"} <= set(run.pairwise.columns):
        return None
    for row in run.pairwise.to_dict(orient="records"):
        if (row["first"], row["second"]) == (first, second) and wording.known(row["difference"]):
            return {str(k): v for k, v in row.items()}
    return None


def _truth(run: RunFolder) -> list[str]:
    """Whether another authority agrees with the order, and whether all methods beat the baseline by it."""
    agreeing, methods = [], 0
    for role in [r for r in ("gold", "humans") if r in leaderboard.roles(run)]:
        if (row := run.correlation("judge", role)) is not None:
            value = wording.estimate(row["spearman"], row.get("spearman_low"), row.get("spearman_high"), 2)
            agreeing.append(f"{value} with that of the {wording.role(role)}")
            methods = int(row["n_methods"])
    said = []
    if agreeing:
        order = f"The judge’s order of the {wording.plural(methods, 'method')}"
        said.append(f"{order} has a Spearman correlation of {wording.listing(agreeing)}.")
    authority = next((r for r in ("gold", "humans", "judge") if r in leaderboard.roles(run)), None)
    learned = [row for name, row in run.board.items() if name != BASELINE]
    low = f"{leaderboard.column_of(authority)}_low" if authority else ""
    if authority is None or not learned or not all(wording.known(r.get(low)) for r in learned):
        return said
    unproven = [r for r in learned if r[low] <= 50]
    if not unproven:
        said.append(
            f"By the {wording.role(authority)}, every method beats the baseline:"
            f" all intervals lie above 50{wording.THIN}%."
        )
    else:
        names = wording.listing([f"{r['method']} ({_win_rate(r, authority)})" for r in unproven])
        many = len(unproven) > 1
        said.append(
            f"By the {wording.role(authority)}, {names} {'are' if many else 'is'} not shown to beat the baseline"
            + ("; the others are." if len(unproven) < len(learned) else ".")
        )
    return said


def figures(run: RunFolder) -> list[dict[str, str]]:
    """The few numbers that a reader in a hurry takes along."""
    shown = []
    rows = list(run.board.values())
    if rows and wording.known(rows[0].get("win_rate")):
        best = rows[0]
        bounds = wording.interval(best.get("win_rate_low"), best.get("win_rate_high"), 1)
        value = f"{wording.number(best['win_rate'], 1)}{wording.THIN}%"
        shown.append(
            {"name": "First place", "value": str(best["method"]), "note": f"win rate {value} {bounds}".strip()}
        )
    for other in ("gold", "humans", "gold_utility"):
        row = run.correlation("judge", other)
        if row is not None:
            bounds = wording.interval(row.get("spearman_low"), row.get("spearman_high"))
            note = f"{f'Spearman {bounds}'.strip()}, {wording.plural(int(row['n_methods']), 'method')}"
            value = wording.number(row["spearman"], 2)
            shown.append({"name": f"Judge and {wording.role(other)}", "value": value, "note": note})
            break
    spent = expenses.totals(run)
    if spent["annotations"]:
        note = f"cost {wording.money(spent['price'])}; people: {wording.money(spent['people'])}"
        shown.append({"name": "Annotations", "value": wording.count(spent["annotations"]), "note": note})
    if spent["seconds"]:
        memory = run.costs.get("peak_memory_gib")
        note = (
            f"at most {wording.number(memory, 1)}{wording.THIN}GiB of memory" if wording.known(memory) else "all stages"
        )
        shown.append({"name": "Time of all stages", "value": wording.duration(spent["seconds"]), "note": note})
    return shown


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Under what conditions."""
    config, version = run.config, run.environment.get("feedback-farm")
    judges = config.get("judges") if isinstance(config.get("judges"), dict) else {}
    found = [
        ("Date", run.date.replace("T", " ").replace("+00:00", " UTC")),
        ("Seed", str(run.seed)),
        ("World", wording.class_name(config.get("world"))),
        ("Training annotator", wording.class_name(config.get("annotator"))),
    ]
    found += [(wording.role(str(role)).capitalize(), wording.class_name(spec)) for role, spec in (judges or {}).items()]
    if version:
        found.append(("feedback-farm", str(version)))
    return [(name, value) for name, value in found if value != wording.DASH]
