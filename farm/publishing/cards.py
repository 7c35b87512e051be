"""The card of a data set or a model: a README.md with the hub's header, made of facts alone.

Names and settings of a run are data: a cell of a table is one line without bars, and nothing in a block ends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

import farm
from farm.experiments.run_folder import compact
from farm.publishing.facts import RunFacts

MADE_WITH = f"feedback-farm {farm.__version__}"


def data_set(
    title: str,
    tables: Mapping[str, tuple[str, str]],
    files: Mapping[str, str],
    default: str,
    notes: Sequence[str],
    run: RunFacts | None,
    license_name: str | None,
) -> str:
    """The card of a data set.

    Args:
        tables: config -> what it holds, and how much.
        files: config -> its file.
        default: the config that is loaded where none is named.
        notes: sentences on how far annotators agree.
        run: what it is from, where that is known.
    """
    # Of a file nobody knows whether people or programs gave it.
    tags = ["feedback-farm", "preference-data", *(["synthetic"] if run else [])]
    header: dict[str, Any] = {"pretty_name": title, "tags": tags}
    header["configs"] = [
        {"config_name": name, "data_files": file, **({"default": True} if name == default else {})}
        for name, file in files.items()
    ]
    made = "Simulated feedback, written" if run else "A set of feedback, pushed"
    parts = [f"# {line(title)}", f"{made} by {MADE_WITH}{_when(run)}."]
    rows = [(f"`{name}`", *tables[name]) for name in files]
    parts += ["## What is in it", _table(("config", "what", "rows"), rows)]
    if run:
        parts += _givers(run)
    if notes:
        parts += ["## Agreement", *notes]
    if run:
        parts += [*_costs(run), "## World", _code(run.spec("world"), "yaml")]
    loading = f'from datasets import load_dataset\n\ndata = load_dataset("OWNER/NAME", "{default}")'
    parts += ["## Use", _code(loading, "python"), *_license(license_name)]
    return _whole(header, license_name, parts)


def model(
    title: str, what: str, opens: str, shift: float, run: RunFacts | None, name: str, license_name: str | None
) -> str:
    """The card of a policy or a reward model.

    Args:
        what: policy or reward model.
        opens: the class of transformers that opens it.
        shift: what a reward model's logit lacks, the same for every text.
        name: of the method or the model in its run.
    """
    policy = what == "policy"
    header: dict[str, Any] = {"library_name": "transformers", "tags": ["feedback-farm", what.replace(" ", "-")]}
    header["pipeline_tag"] = "text-generation" if policy else "text-classification"
    base = run.environment.get("base_model") if run else None
    if isinstance(base, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        header["base_model"] = base
    parts = [f"# {line(title)}", f"A {what}, trained and written by {MADE_WITH}{_when(run)}."]
    if run:
        key = ("methods", name) if policy else ("models", name)
        spec = run.spec(*key) or run.spec(name)
        parts += [f"## {'Method' if policy else 'Model'}", _code(spec, "yaml")] if spec else []
        parts += _givers(run)
        row = run.board[run.board["method"].astype(str) == name] if "method" in run.board.columns else run.board
        if policy and len(row):
            parts += ["## Result", "Against the SFT policy, on held-out instructions, by the judges of the run:"]
            parts.append(_frame(compact(row)))
        if not policy and {"model", "of", "accuracy", "n"} <= set(run.accuracy.columns):
            own = run.accuracy[run.accuracy["model"].astype(str) == name]
            if len(own):
                parts += ["## Agreement", _frame(own[["of", "accuracy", "n"]].round(3))]
        parts += [*_costs(run), "## World", _code(run.spec("world"), "yaml")]
    use = _POLICY if policy else _SUMMED if opens == "AutoModelForTokenClassification" else _REWARD
    parts += ["## Use", _code(use.replace("SHIFT\n", _SHIFT if shift else ""), "python")]
    if shift:
        parts.append(
            f"The head of this class has no bias; the line with `score.bias` gives it one, {shift:.6g}, with which the "
            "logits are the scores of the run. It is the same for every text: differences and rankings need it not."
        )
    parts += _license(license_name)
    return _whole(header, license_name, parts)


_POLICY = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("OWNER/NAME")
model = AutoModelForCausalLM.from_pretrained("OWNER/NAME")
asked = [{"role": "user", "content": "..."}]
tokens = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**tokens)[0, tokens["input_ids"].shape[1]:], skip_special_tokens=True))"""
_SHIFT = "model.score.bias = torch.nn.Parameter(model.score.weight.new_tensor([model.config.score_shift]))\n"
_REWARD = """import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("OWNER/NAME")
model = AutoModelForSequenceClassification.from_pretrained("OWNER/NAME")
SHIFT
said = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]
tokens = tokenizer.apply_chat_template(said, return_tensors="pt", return_dict=True)
print(model(**tokens).logits)"""
_SUMMED = """from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("OWNER/NAME")
model = AutoModelForTokenClassification.from_pretrained("OWNER/NAME")
said = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]
asked = tokenizer.apply_chat_template(said[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
tokens = tokenizer.apply_chat_template(said, return_tensors="pt", return_dict=True)
logits = model(**tokens).logits[0]
print(logits[-1, 0] + logits[len(asked):, 1].sum())  # the last token, and the sum over the response"""


def _when(run: RunFacts | None) -> str:
    if run is None:
        return ""
    date = str(run.environment.get("date", ""))[:10]
    seed = run.config.get("seed")
    said = [f"in the run {span(run.name)}", *([] if seed is None else [f"seed {seed}"]), *([date] if date else [])]
    return f" {', '.join(said)}"


def _givers(run: RunFacts) -> list[str]:
    """Who gave the feedback and who judged, with their noise, as the run's configuration says it."""
    feedback = run.config.get("feedback")
    parts = ["## Annotators"]
    for kind in feedback if isinstance(feedback, dict) else ():
        parts += [f"Training feedback, {line(kind)}:", _code(run.spec("feedback", kind), "yaml")]
    judges = run.config.get("judges")
    for role in judges if isinstance(judges, dict) else ():
        parts += [f"Judge, role {span(role)}:", _code(run.spec("judges", role), "yaml")]
    return parts if len(parts) > 1 else []


def _costs(run: RunFacts) -> list[str]:
    rows = [
        (a["role"], f"{a['annotations']:,}", f"${a['price']:.2f}", f"${a['price_of_people']:.2f}")
        for a in run.costs.get("annotations", [])
    ]
    if not rows:
        return []
    return ["## Costs", _table(("role", "answers", "paid", "what people would have cost"), rows)]


def _license(name: str | None) -> list[str]:
    said = f"{line(name)}." if name else "None was named; ask the owner of this repository before you use it."
    return ["## Licence", said]


def _whole(header: dict[str, Any], license_name: str | None, parts: Sequence[str]) -> str:
    header = {**({"license": license_name} if license_name else {}), **header}
    said = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{said}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def span(text: object) -> str:
    """A text as one line in a code span, where nothing but a backtick ends it and a bar would end a cell."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)).replace('|', '/')}`"


def line(text: object) -> str:
    """A text as one line that neither ends a cell nor begins anything in Markdown."""
    plain = " ".join(str(text).split())
    return re.sub(r"([\\|`<>*_\[\]#])", r"\\\1", plain)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    listed = [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    return "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *listed])


def _frame(table: pd.DataFrame) -> str:
    return _table([line(c) for c in table.columns], [[line(cell) for cell in row] for row in table.to_numpy(object)])


def _code(text: str, language: str) -> str:
    if not text:
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
