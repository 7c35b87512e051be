"""What a run would do: its stages done and to do, the verdicts it would ask for, and what they take and cost.

Seconds and prices come from earlier stages like them (farm.scheduling.estimate). Where there is none, a wing that
knows the annotators tells their prices (farm.forecasts.foreseen_prices), and GPU time is computed
(farm.forecasts.arithmetic); each is said to be so. What is left is said to be unknown, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from farm.base.errors import UserError
from farm.experiments import room
from farm.experiments.plan import Plan
from farm.experiments.running import StudyRunner
from farm.experiments.setting import Setting
from farm.experiments.stages.method import MethodStage
from farm.experiments.stages.stage import Size
from farm.forecasts import arithmetic
from farm.forecasts.foreseen_prices import TYPICAL_INSTRUCTION, TYPICAL_OUTPUT, ForeseenPrices
from farm.forecasts.measured_speed import MeasuredSpeed
from farm.scheduling.environment import gpus
from farm.scheduling.estimate import Estimator, duration, total
from farm.storage.store import address


def foresee(runner: StudyRunner, workers: int) -> dict[str, Any]:
    """Plain data for ``farm run --dry-run --json``; nothing is made."""
    absent = None
    try:
        graph = runner.graph()
    except UserError as error:  # the data are not here yet: the stages are known all the same, and none of them is done
        absent = str(error)
        for plan in runner.plans:
            plan.without_texts()
        graph = runner.graph()
    again = runner.again(graph)
    artifacts = runner.plans[0].artifacts
    estimator, prices, speed = Estimator(artifacts.timings()), ForeseenPrices(), MeasuredSpeed()
    there = len(gpus())
    plan_of = {key: plan for plan in runner.plans for key in plan.graph}
    rows: list[dict[str, Any]] = []
    for key, node in graph.items():
        done = key not in again and artifacts.there(node.name, key)
        estimate = estimator(node)
        seconds, price, foreseen = estimate.seconds, estimate.price, None
        setting, size = plan_of[key].setting, plan_of[key].stages[key].size()
        if not done and size.asks is not None and not estimate.same:
            foreseen = prices(setting, size.asks)
            price = price if foreseen is None else foreseen["price"]
        on_gpus = node.gpus_of(there) > 0
        computed = not done and seconds is None and on_gpus
        if computed:
            world = setting.description["world"]
            seconds = arithmetic.seconds(str(world.get("model", "")), size.texts, world.get("max_new_tokens"))
        measured = not done and seconds is None and not computed and absent is None
        if measured:
            seconds = _measured(speed, setting, size, foreseen)
        rows.append(
            {
                "stage": node.name,
                "kind": node.kind,
                "seed": node.facts.get("seed"),
                "done": done,
                "verdicts": 0 if size.asks is None else size.asks.rows,
                "seconds": None if done else seconds,
                "computed": computed and seconds is not None,
                "measured": measured and seconds is not None,
                "price": None if done else price,
                "questions": foreseen and {k: foreseen[k] for k in _COUNTED},
                "gpu": estimate.gpu or on_gpus,
            }
        )
    ahead = [row for row in rows if not row["done"]]
    if ahead and ahead[0]["measured"]:  # the base model is made by whoever wants it first
        ahead[0]["seconds"] += sum(speed.base_model(plan.setting) for plan in _one_a_world(runner.plans))
    seconds, unknown = total(row["seconds"] for row in ahead)
    gpu_seconds, _ = total(row["seconds"] for row in ahead if row["gpu"])
    asked = [row for row in ahead if row["verdicts"]]
    price, unpriced = total(row["price"] for row in asked)
    questions = [row["questions"] for row in asked if row["questions"]]
    stages = [plan_of[key].stages[key] for key in graph]
    learning = sorted({s.method for s in stages if isinstance(s, MethodStage) and s.asks})
    described = runner.plans[0].setting.description
    return {
        "run": str(runner.folder),
        "device": runner.plans[0].device_lines,
        "preset": room.recommended(described),
        "variants": len(runner.plans),
        "absent": absent,
        "stages": rows,
        "done": len(rows) - len(ahead),
        "to_do": len(ahead),
        "verdicts": sum(row["verdicts"] for row in ahead),
        "price": price,
        "verdicts_without_a_price": sum(row["verdicts"] for row in asked if row["price"] is None),
        "stages_without_a_price": unpriced,
        "models": sorted({name for asked_of in questions for name in asked_of["models"]}),
        "models_without_a_price": sorted({name for asked_of in questions for name in asked_of["unpriced"]}),
        **{k: sum(asked_of[k] for asked_of in questions) for k in ("input_tokens", "output_tokens")},
        "ask_while_they_learn": learning,
        "seconds": seconds,
        "stages_without_a_time": unknown,
        "stages_computed": sum(row["computed"] for row in ahead),
        "stages_measured": sum(row["measured"] for row in ahead),
        "gpu_hours": gpu_seconds / 3600,
        "workers": workers,
    }


_COUNTED = ("questions", "input_tokens", "output_tokens", "models", "unpriced")


def _measured(speed: MeasuredSpeed, setting: Setting, size: Size, foreseen: dict[str, Any] | None) -> float | None:
    if size.asks is None:
        return speed.seconds(setting, size.texts)
    programs = foreseen is not None and foreseen["price"] == 0 and not foreseen["questions"]
    return speed.verdicts(setting, size.asks) if programs else None


def _one_a_world(plans: Sequence[Plan]) -> Iterable[Plan]:
    return {address(plan.setting.description["world"]): plan for plan in plans}.values()


def text(foreseen: dict[str, Any]) -> str:
    """What `farm run --dry-run` prints."""
    rows = foreseen["stages"]
    out = [f"{'stage':<16}{'done':>8}{'to do':>8}{'verdicts':>12}{'time':>12}{'price':>12}"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = [row for row in rows if row["kind"] == kind]
        ahead = [row for row in of if not row["done"]]
        verdicts = sum(row["verdicts"] for row in ahead)
        asked = [row for row in ahead if row["verdicts"]]
        out.append(
            f"{kind:<16}{len(of) - len(ahead):>8,}{len(ahead):>8,}{verdicts or '':>12}"
            f"{_known(ahead, 'seconds', duration):>12}{_known(asked, 'price', _dollars):>12}"
        )
    for row in rows if len(rows) <= 60 else ():
        state = "done" if row["done"] else "to do"
        took = "" if row["done"] else " ?" if row["seconds"] is None else f" {duration(row['seconds'])}"
        out.append(f"  {state:<6}{row['stage']:<40}{took}")
    if foreseen["absent"]:
        out.append(f"Nothing can be done before this is: {foreseen['absent']}")
    variants = f"{foreseen['variants']} variant{'s' * (foreseen['variants'] > 1)}"
    out.append(f"{foreseen['done']} stages are done and {foreseen['to_do']} to do, in {variants}.")
    out += [_verdicts(foreseen), _time(foreseen), *_device(foreseen)]
    return "\n".join(out)


def _known(rows: list[dict[str, Any]], column: str, shown: Any) -> str:
    if not rows:
        return ""
    value, unknown = total(row[column] for row in rows)
    if unknown == len(rows):
        return "?"
    return str(shown(value)) + (" + ?" if unknown else "")


def _dollars(price: float) -> str:
    return f"${price:,.2f}" if price else "free"


def _verdicts(foreseen: dict[str, Any]) -> str:
    said = f"Verdicts to ask for: at most {foreseen['verdicts']:,}"
    if not foreseen["verdicts"]:
        return "No verdict is asked for."
    unknown = foreseen["verdicts_without_a_price"]
    if unknown < foreseen["verdicts"]:
        free = not foreseen["price"] and not foreseen["models"]
        if free or foreseen["price"] or not unknown:
            said += ", free: programs give them" if free else f", for about ${foreseen['price']:,.2f}"
    if foreseen["models"]:
        tokens = f"{foreseen['input_tokens']:,} tokens and at most {foreseen['output_tokens']:,} of answers"
        texts = f", texts taken as {TYPICAL_INSTRUCTION} and {TYPICAL_OUTPUT} characters" if foreseen["absent"] else ""
        said += f" ({', '.join(foreseen['models'])}: {tokens}{texts})"
    if unpriced := foreseen["models_without_a_price"]:
        said += f"; of {unknown:,} the price is not known, name {', '.join(unpriced)} in a file of prices (FARM_PRICES)"
    elif unknown:
        said += f"; of {unknown:,} the price is not known before such an annotator has been asked once"
    if learning := foreseen["ask_while_they_learn"]:
        said += f". Not counted: what {' and '.join(learning)} will ask while learning"
    return said + "."


def _device(foreseen: dict[str, Any]) -> list[str]:
    """What the run is on, what fits there, and the preset that suits."""
    first, *rest = foreseen["device"]
    out = [f"It {first}.", *(f"  {line}" for line in rest)]
    if foreseen["preset"] is not None:
        suits = f"--set world.preset={foreseen['preset']}"
        out.append(f"Of the presets of farm run text, {suits} suits a model of this size on this device.")
    return out


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
    computed, measured = foreseen["stages_computed"], foreseen["stages_measured"]
    ways = ["by earlier stages like them"] if known > computed + measured else []
    if computed:
        how = f"at {arithmetic.TRAINING:.0%} of {arithmetic.PEAK / 1e12:g} TFLOP/s in training"
        assumed = f"{computed} GPU stages by the model's arithmetic, {how}, {arithmetic.SAMPLING:.0%} in sampling"
        ways.append(f"assumed for {assumed}")
    if measured:
        ways.append(f"for {measured} stages by what this machine did in a second just now")
    whose = ", and ".join(ways)
    alone = f"Time, {whose}: {duration(foreseen['seconds'])}{gpu}"
    return alone + (spread if foreseen["workers"] > 1 else "") + rest + "."
