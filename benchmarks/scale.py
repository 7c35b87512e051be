"""What a large study takes: work counted from the experiment's graph, divided by rates, scheduled on so many devices.

    python benchmarks/scale.py                                         # the table of docs/scale.md
    python benchmarks/scale.py --train 9000 --score 30000 --sample 4000   # your own rates, tokens a second and device

The rates of the processor were measured; those of a GPU are assumed from its arithmetic and a utilisation, until
they are measured (`benchmarks/train_gpu.py`) and passed.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Study:
    """The counts of a study."""

    instructions: int = 1_000_000
    annotators: int = 13
    methods: int = 20
    offline: int = 12
    """of the methods: two epochs over the annotated pairs; the others sample, score and learn from one response each"""
    seeds: int = 5
    demonstrations: int = 10_000
    evaluation: int = 805
    prompt: int = 64
    response: int = 128
    """tokens"""


@dataclass(frozen=True)
class Rates:
    """Tokens a second of one device."""

    name: str
    train: float
    score: float
    sample: float


def processor() -> Rates:
    """SmolLM2-135M, bfloat16, two cores, measured: full SFT of 8 x 128 tokens in 3.7 s; scoring; sampling."""
    return Rates("135M model, two CPU cores (measured)", 8 * 128 / 3.7, 1250, 541)


def gpu(parameters: float, peak: float, train: float = 0.4, score: float = 0.4, sample: float = 0.1) -> Rates:
    """From arithmetic: 6 N a token in training, 2 N otherwise, at shares of the peak (FLOP/s) that are assumptions."""
    name = f"{_size(parameters)} model, GPU with {peak / 1e12:g} TFLOP/s (assumed {train:.0%}/{score:.0%}/{sample:.0%})"
    return Rates(
        name, train * peak / (6 * parameters), score * peak / (2 * parameters), sample * peak / (2 * parameters)
    )


def _size(parameters: float) -> str:
    return f"{parameters / 1e9:g}B" if parameters >= 1e9 else f"{parameters / 1e6:g}M"


Stage = tuple[str, float, list[int]]
"""kind, seconds on a device, the stages it needs"""

TRAIN = ("sft", "reward model", "method")
"""stages that several devices can make together (`resources: {method: {gpus: 8}}`)"""
KEPT = 0.9
"""of what each device of a group does alone, what it does in the group; an assumption"""


def stages(s: Study, r: Rates, judge: float) -> list[Stage]:
    """All stages with their seconds; ``judge`` are seconds of a device for one verdict (0: programs, or an API)."""
    text = s.prompt + s.response
    sample = s.response / r.sample
    out: list[Stage] = []

    def add(kind: str, seconds: float, needs: list[int]) -> int:
        out.append((kind, seconds, needs))
        return len(out) - 1

    for _ in range(s.seeds):
        sft = add("sft", 3 * s.demonstrations * text / r.train, [])
        pairs = add("pairs", 2 * s.instructions * sample, [sft])
        for _ in range(s.annotators):
            annotation = add("annotation", s.instructions * judge, [pairs])
            reward = add("reward model", 2 * s.instructions * text / r.train, [annotation])
            for m in range(s.methods):
                if m < s.offline:  # two epochs, both sides, and the reference's log-probabilities once
                    seconds = 2 * s.instructions * text * (2 / r.train + 1 / r.score)
                    needs = [annotation]
                else:
                    seconds = s.instructions * (sample + text * (2 / r.score + 1 / r.train))
                    needs = [reward]
                method = add("method", seconds, needs)
                answers = add("answers", s.evaluation * (sample + 3 * text / r.score), [method, reward])
                add("judgement", s.evaluation * judge, [answers])
    return out


def makespan(graph: list[Stage], devices: int, group: int = 1) -> float:
    """Seconds until all is done when free devices take the ready stage that has the longest way to go; those that train
    take a ``group`` of devices each."""
    width = [group if kind in TRAIN else 1 for kind, _, _ in graph]
    length = [seconds / (n * KEPT if n > 1 else 1) for (_, seconds, _), n in zip(graph, width, strict=True)]
    below: list[list[int]] = [[] for _ in graph]
    for i, (_, _, needs) in enumerate(graph):
        for need in needs:
            below[need].append(i)
    tail = [0.0] * len(graph)
    for i in reversed(range(len(graph))):
        tail[i] = length[i] + max((tail[j] for j in below[i]), default=0.0)
    waiting = [len(needs) for _, _, needs in graph]
    ready = [(-tail[i], i) for i, n in enumerate(waiting) if n == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, free = 0.0, devices
    while ready or running:
        while ready and width[ready[0][1]] <= free:
            i = heapq.heappop(ready)[1]
            free -= width[i]
            heapq.heappush(running, (now + length[i], i))
        now, i = heapq.heappop(running)
        free += width[i]
        for j in below[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, (-tail[j], j))
    return now


def days(seconds: float) -> str:
    """A duration in the unit that suits."""
    if seconds < 2 * 86400:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 86400:,.0f} days" if seconds < 3 * 365 * 86400 else f"{seconds / 86400 / 365:,.0f} years"


def table(s: Study, r: Rates, judge: float, group: int = 1) -> list[str]:
    """Rows of Markdown: device hours by kind, and how long all takes on 1, 8 and 64 devices, a ``group`` a training."""
    graph = stages(s, r, judge)
    kinds = list(dict.fromkeys(kind for kind, _, _ in graph))
    hours = {k: sum(sec for kind, sec, _ in graph if kind == k) / 3600 for k in kinds}
    parts = ", ".join(f"{k} {h:,.0f}" for k, h in hours.items())
    shared = group * KEPT if group > 1 else 1.0
    longest = max(sec / (shared if kind in TRAIN else 1) for kind, sec, _ in graph)
    cells = " | ".join(days(makespan(graph, n, group)) if n >= group else "" for n in (1, 8, 64))
    total = sum(h / (KEPT if group > 1 and kind in TRAIN else 1) for kind, h in hours.items())
    return [f"| {r.name} | {cells} | {total:,.0f} | {days(longest)} |", f"  device hours: {parts}"]


def judges(s: Study, price_in: float, price_out: float, tokens: int, per_minute: float) -> list[str]:
    """What the verdicts cost on an API: dollars a million tokens, tokens of a question, requests a minute."""
    training = s.instructions * s.annotators * s.seeds
    evaluation = s.annotators * s.methods * s.seeds * s.evaluation
    out = []
    for name, n in (
        ("training labels", training),
        ("with a 25 % flip drawn first", training // 2),
        ("evaluation", evaluation),
    ):
        price = n * (tokens * price_in + 5 * price_out) / 1e6
        people = "" if name.startswith("with") else f"${0.25 * n:,.0f}"
        out.append(f"| {name} | {n:,} | ${price:,.0f} | {days(60 * n / per_minute)} | {people} |")
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "score", "sample"):
        arguments.add_argument(f"--{name}", type=float, help="tokens a second of one device, measured")
    arguments.add_argument("--peak", type=float, default=400e12, help="FLOP/s of a GPU's bfloat16 matrix product")
    arguments.add_argument("--instructions", type=int, default=1_000_000)
    given = arguments.parse_args()
    study = replace(Study(), instructions=given.instructions)
    print(f"{len(stages(study, processor(), 0)):,} stages")
    head = "| model and device | 1 device | 8 devices | 64 devices | device hours | longest stage |"
    print(head + "\n|---|---|---|---|---|---|")
    rates = [processor(), gpu(135e6, given.peak), gpu(7e9, given.peak)]
    if given.train and given.score and given.sample:
        rates = [Rates("yours (measured)", given.train, given.score, given.sample)]
    for r in rates:
        print("\n".join(table(study, r, 0.0)))
    local = gpu(7e9, given.peak)
    print("the same, each training in a group of eight devices:")
    print("\n".join(table(study, rates[-1], 0.0, group=8)))
    print("the same, verdicts by a 7B judge on the same devices (600 tokens a question):")
    print("\n".join(table(study, rates[-1], 600 / local.score)))
    print("\n| verdicts | number | API price | at 10,000 a minute | people |\n|---|---|---|---|---|")
    print("\n".join(judges(study, 0.10, 0.50, 600, 10_000)))


if __name__ == "__main__":
    main()
