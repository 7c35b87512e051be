"""Good files of all commands, as rows: each is what a user may have, small."""

from __future__ import annotations

from typing import Any


def annotations(n: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "id": k % 4,
            "instruction": f"i{k % 4}",
            "output_1": "a" * (k + 1),
            "output_2": "b " * (2 * k + 1),
            "generator_1": "base",
            "generator_2": "mn"[k // 4],
            "annotator": "j",
            "preference": [1, 2, 1.5, 2, 1, 2, 2, 1][k % 8],
            "dataset": "d",
        }
        for k in range(n)
    ]


def battles() -> list[dict[str, Any]]:
    met = [
        ("a", "b", "model_a"),
        ("b", "c", "model_a"),
        ("c", "a", "model_a"),
        ("a", "b", "tie"),
        ("b", "a", "model_b"),
    ]
    return [
        {"id": k // 2, "model_a": a, "model_b": b, "winner": w, "worker": "xy"[k % 2]}
        for k, (a, b, w) in enumerate(met)
    ]


def votes() -> list[dict[str, Any]]:
    return [
        {
            "pair_id": k // 4,
            "instruction": f"i{k // 4}",
            "output_1": f"one {k // 4}",
            "output_2": f"another {k // 4}",
            "annotator": f"p{k % 4}",
            "preference": 1 + (k * 7 // 3) % 2,
        }
        for k in range(48)
    ]


def outputs(name: str = "m", more: int = 0) -> list[dict[str, Any]]:
    return [
        {"instruction": f"i{k // 2 if more else k}", "output": f"{name} says {k}", "generator": name, "score": k / 2}
        for k in range(4 * (1 + more))
    ]


TABLES: dict[str, list[dict[str, Any]]] = {
    "annotations": annotations(),
    "battles": battles(),
    "votes": votes(),
    "judge": [r | {"annotator": "judge"} for r in votes() if r["annotator"] == "p0"],
    "verdicts": [{"pair_id": k, "preference": 1 + k % 2, "annotator": "judge"} for k in range(12)],
    "texts": [
        {"pair_id": k, "instruction": f"i{k}", "output_1": f"- one\n- {k}", "output_2": f"another {k} " * 5}
        for k in range(12)
    ],
    "runs": [
        {"id": k, "winner": 1 + k % 2, "human_label": 1 + k // 3 % 2, "judge": "j", "swapped": k % 2}
        for k in range(12)
    ],
    "outputs": outputs(),
    "several": outputs(more=1),
    "baseline": outputs("base"),
    "difficulty": [{"instruction": f"i{k}", "instruction_difficulty": k / 3} for k in range(4)],
    "published": [{"method": m, "win_rate": 50.0, "n_total": 4} for m in "mn"],
    "row": [{"": "humans", "Human agreement": 65.7, "Variance": 34.3, "Proba. prefer longer": 0.6,
             "Proba. prefer lists": 0.6, "Proba. prefer 1": 0.5}],
    "anchors": [
        {"instruction": f"i{k // 2}", "output_1": "a", "output_2": f"b {k // 2}", "generator_1": "m",
         "generator_2": "n", "annotator": "j", "preference": 1 + k % 2, "status": "ok", "seed": 0,
         "replicate": k % 2, "shown_first": 1}
        for k in range(6)
    ],
}  # fmt: skip


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


_SAYS = {"status": "ok", "annotator": "j"}
SETS: dict[str, list[dict[str, Any]]] = {
    "preferences": [{"prompt": f"p{k}", "chosen": "a", "rejected": f"b {k}"} for k in range(3)],
    "hh": [
        {side: f"\n\nHuman: p{k}\n\nAssistant: {side}" for side in ("chosen", "rejected")} for k in range(3)
    ],
    "conversational": [
        {"prompt": [_turn("user", f"p{k}")], "chosen": [_turn("assistant", "a")], "rejected": [_turn("assistant", "b")]}
        for k in range(3)
    ],
    "sheets": [
        {"instance_id": k, "prompt": f"p{k}", "model_a": "m", "model_b": "n", "completion_a": "a", "completion_b": "b",
         "evaluator": "e", "preferred": "a-is-slightly-better"}
        for k in range(3)
    ],
    "arena_hard": [
        {"question_id": f"q{k}", "model": "m", "judge": "j", "games": [{"score": "A>B"}, {"score": "B>>A"}]}
        for k in range(3)
    ],
    "labels": [{"prompt": f"p{k}", "completion": "a", "label": k == 1} for k in range(3)],
    "ultrafeedback": [
        {"instruction": f"i{k}", "completions": [
            {"model": m, "response": m * k, "overall_score": k / 2, "annotations": {"honesty": {"Rating": "4"}}}
            for m in "mn"
        ]}
        for k in range(1, 4)
    ],
    "helpsteer": [
        {"prompt": f"p{k // 2}", "response": "a" * (k + 1), "helpfulness": k, "correctness": 1, "coherence": 2,
         "complexity": 3, "verbosity": 4}
        for k in range(4)
    ],
    "ratings": [
        {"instruction": f"i{k // 2}", "output": "a" * (k + 1), "generator": "m", "score": k, "aspect_wit": 1.5, **_SAYS}
        for k in range(4)
    ],
    "completions": [{"prompt": f"p{k}", "completion": "a", "generator": "m"} for k in range(3)],
    "messages": [{"messages": [_turn("user", f"p{k}"), _turn("assistant", "a")], "generator": "m"} for k in range(3)],
    "rankings": [{"instruction": f"i{k}", "outputs": ["a", "b", "c"], "ranking": [2, 0, 1], **_SAYS} for k in range(3)],
    "reactions": [
        {"instruction": f"i{k}", "output": "a", "liked": k == 1, "observed": True, "propensity": 0.5, **_SAYS}
        for k in range(3)
    ],
    "critiques": [
        {"instruction": f"i{k}", "output": "abc", "text": "good", "polarity": 0.5,
         "marks": [{"start": 0, "end": 2, "value": 1.0, "aspect": "wit"}], **_SAYS}
        for k in range(3)
    ],
    "corrections": [{"instruction": f"i{k}", "output": "a", "correction": "b", **_SAYS} for k in range(3)],
    "checks": [{"instruction": f"i{k}", "output": "a", "right": True, **_SAYS} for k in range(3)],
    "triplets": [
        {"instruction": f"i{k}", "anchor": "a", "output_1": "b", "output_2": "c", "nearer": 1, **_SAYS}
        for k in range(3)
    ],
    "sets": [{"instruction": f"i{k}", "outputs": ["a", "b", "c"], "value": k / 2, **_SAYS} for k in range(3)],
}  # fmt: skip
"""by the name of their format (`farm convert`)"""
TABLES |= SETS

DOCUMENTS: dict[str, dict[str, Any]] = {
    "experiment.yaml": {
        "about": "small",
        "world": "matrix",
        "sft": None,
        "annotator": {"use": "training", "rate": 0.1},
        "reward_model": "reward_model",
        "methods": {"dpo": {"learning_rate": 0.1}, "own": {"use": "ppo", "steps": 2}},
        "judges": {"judge": "gold"},
        "evaluator": {"use": "leaderboard", "rounds": 5},
        "seed": 1,
        "sizes": {"pairs": 8, "prompts": 4, "evaluation": 2, "samples": 2},
    },
    "paper.yaml": {
        "title": "small",
        "claim": "it gains",
        "notes": "none",
        "runs": {
            "shared": {"world": "matrix", "sft": None, "seeds": [1, 2], "sizes": {"pairs": 8, "prompts": 4}},
            "main": {"methods": {"dpo": {"learning_rate": 0.1}, "still": {"use": "dpo", "learning_rate": 0}}},
        },
        "claims": [
            {"text": "it gains", "measure": "column",
             "of": {"run": "main", "method": "dpo", "args": {"column": "gold"}},
             "against": {"run": "main", "method": "sft", "args": {"column": "gold"}}, "expect": "above"}
        ],
        "controls": [
            {"text": "nothing", "measure": "column", "of": {"run": "main", "method": "still"},
             "against": {"run": "main", "method": "sft"}, "within": 0.01}
        ],
    },
    "annotator.yaml": {
        "about": "small",
        "class": "annotators.noise.flip.Flip",
        "annotator": {"class": "annotators.people.logit.LogitAnnotator", "temperature": 1.0, "length_bias": 0.5},
        "rate": 0.25,
    },
    "game.json": {"preferences": [[0.5, 0.7], [0.3, 0.5]], "reference": [0.5, 0.5], "responses": ["a", "b"]},
}  # fmt: skip
