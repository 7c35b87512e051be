"""The report: self-contained, escaped, complete, and honest about what is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.report import annotators, examples, expenses, summary
from eval.report.folder import RunFolder
from eval.report.html import Html
from eval.report.tables import Palette
from farm.base.errors import UserError
from farm.cli import main
from farm.roles.config import build as build_from
from farm.roles.protocols import Reporter

VOID = {"meta", "link", "input", "br", "hr", "img"}
ATTACK = (
    '</script><script>window.taken = 1</script> <img src=x onerror="window.taken = 2"> \' " onload=1 '
    "{{ 7 * 191 }} {% raw %} \u202eesrever\u202c \u2066\x00\x1b[31m ]]> &lt; --> 日本語 😀"
)


class Page(HTMLParser):
    """What stands in a page: its elements, their attributes, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.elements: Counter[str] = Counter()
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.words.setdefault(self.stack[-1], []).append(data)

    def text(self) -> str:
        return " ".join(w for tag, words in self.words.items() if tag not in ("script", "style") for w in words)


def _written(run: Path) -> str:
    return Html().write(run).read_text(encoding="utf-8")


def test_one_file_that_needs_nothing_else(make_run: Callable[..., Path]) -> None:
    run = make_run()
    text = _written(run)
    page = Page(text)
    assert len(text.encode()) < 1_000_000
    assert not re.findall(r"https?:|@import|//[a-z]+\.", text)
    fetching = [(n, v) for _, n, v in page.attributes if n in ("src", "href", "srcset", "action", "data", "xlink:href")]
    assert all(value.startswith("#") or value == "data:," for _, value in fetching)
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for _, value in fetching if value.startswith("#")} <= set(identifiers)
    assert str(run.parent) not in text, "a report must not say where it was made"
    assert not list(run.glob(".report*"))


def test_every_section_has_its_content(make_run: Callable[..., Path]) -> None:
    run = make_run()
    text = _written(run)
    assert 'class="missing"' not in text and 'class="absent"' not in text
    board = json.loads((run / "leaderboard.json").read_text())
    shown = Page(text).text()
    for row in board:
        assert f"{row['win_rate']:.1f}" in shown and row["method"] in shown
    best = board[0]
    assert f"{best['method']} comes first" in shown
    assert f"[{best['win_rate_low']:.1f}, {best['win_rate_high']:.1f}] of {best['n_total']} comparisons" in shown
    agreement = json.loads((run / "agreement.json").read_text())
    row = next(r for r in agreement if (r["first"], r["second"]) == ("judge", "gold"))
    assert f"{row['spearman']:.2f} [{row['spearman_low']:.2f}, {row['spearman_high']:.2f}]" in shown
    assert text.count("<svg") > len(board) + 7
    assert text.count('<details class="example"') == 20


def test_drawings_speak(make_run: Callable[..., Path]) -> None:
    """Every drawing that is not decoration has a role, a title and a description."""
    text = _written(make_run())
    for drawn in re.findall(r"<svg[^>]*>(?:<title>[^<]+</title><desc>[^<]*</desc>)?", text):
        assert 'aria-hidden="true"' in drawn or ('role="img"' in drawn and "<title>" in drawn)


def test_text_of_models_and_users_is_data(make_run: Callable[..., Path]) -> None:
    run = make_run(
        instructions=40, rename={"ppo": "ppo" + ATTACK[:60], "dpo": "{{ 7 * 191 }}"}, texts=lambda text: text + ATTACK
    )
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(
        config.replace("about: five", "about: <b>{{ 7 * 191 }}</b> five"), encoding="utf-8"
    )
    text = _written(run)
    page = Page(text)
    assert page.elements["script"] == 1 and page.elements["img"] == 0 and page.elements["b"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "1337" not in page.text() and "{{ 7 * 191 }}" in page.text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text) and "⟨U+202E⟩" in text
    assert "日本語 😀" in text
    policy = next(v for _, n, v in page.attributes if n == "content" and "script-src" in v)
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"roles": ("judge",), "gold_known": False, "metrics": False}, {"agreement", "learning", "overoptimisation"}),
        ({"roles": ("judge",)}, set()),
        ({"roles": ("judge", "humans"), "gold_known": False}, {"overoptimisation"}),
        ({"metrics": False}, {"learning"}),
    ],
)
def test_what_is_missing_is_left_out_with_a_sentence(
    make_run: Callable[..., Path], settings: dict[str, object], absent: set[str]
) -> None:
    text = _written(make_run(instructions=30, **settings))
    Page(text)
    assert set(re.findall(r'<section id="(\w+)" class="absent">', text)) == absent
    assert text.count('<p class="missing">') == len(absent)
    assert not [a for a in absent if f'href="#{a}"' in text.partition("</nav>")[0].partition("<nav")[2]]


def test_a_folder_with_nothing_but_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: bare\nseed: 3\n")
    text = _written(tmp_path)
    Page(text)
    assert text.count('<p class="missing">') == 9 and "bare" in text


def test_a_leaderboard_of_another_evaluator(make_run: Callable[..., Path]) -> None:
    """Only `method` and `win_rate` are sure to be there."""
    run = make_run(instructions=20)
    for path in run.glob("*.csv"):
        path.unlink()
    for name in ("agreement", "pairwise", "costs", "environment"):
        (run / f"{name}.json").unlink()
    shutil.rmtree(run / "tables")
    (run / "leaderboard.json").write_text(
        json.dumps([{"method": 1, "win_rate": 61.0}, {"method": "b", "win_rate": None}])
    )
    page = Page(_written(run))
    assert "61.0" in page.text() and page.elements["table"] == 1


def test_it_is_built_from_its_configuration(make_run: Callable[..., Path]) -> None:
    reporter = build_from(Reporter, {"use": "html", "examples": 3})
    text = reporter.write(make_run(instructions=20)).read_text(encoding="utf-8")
    assert text.count('<details class="example"') == 3
    with pytest.raises(UserError, match="examples"):
        build_from(Reporter, {"use": "html", "examples": -1})


def test_the_same_folder_gives_the_same_report(make_run: Callable[..., Path]) -> None:
    run = make_run(instructions=20)
    assert _written(run) == _written(run)


# --- known answers ----------------------------------------------------------------------------------------------------


def _folder(run: Path, **tables: pd.DataFrame) -> RunFolder:
    from dataclasses import replace

    return replace(RunFolder.read(run), **tables)


def test_habits_of_annotators(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    table = pd.DataFrame(
        {
            "instruction": ["a", "b", "c", "d", "e"],
            "output_1": ["long text", "short", "- one\n- two", "same", "x"],
            "output_2": ["short", "longer text", "no list here ok", "size", "y"],
            "preference": [1.0, 2.0, 1.0, 1.5, np.nan],
            "status": ["ok"] * 4 + ["refused"],
            "shown_first": [1, 1, 1, 2, 2],
            "annotator": "someone",
        }
    )
    section = annotators.section(_folder(tmp_path, preferences=table))
    columns = [c.head for c in section["table"].columns]
    cells = dict(zip(columns, section["table"].rows[0]))
    assert (cells["Verdicts"].text, cells["Verdicts"].small) == ("4", ())
    turned = table.rename(columns={"output_1": "output_2", "output_2": "output_1"}).assign(preference=[2, 1, 2, 1.5, 1])
    again = annotators.section(_folder(tmp_path, preferences=pd.concat([table, turned])))
    assert again["table"].rows[0][columns.index("Verdicts")].small == ("on 5 pairs",)
    assert (cells["Without verdict"].text, cells["Without verdict"].small) == ("1", ("1 refused",))
    assert cells["Ties, %"].text == "25.0"
    assert cells["Prefers first shown, %"].text == "62.5"  # 1, 0, 1 and a tie
    assert cells["Prefers longer, %"].text == "66.7"  # long over short, longer over short, shorter over longer
    assert cells["Prefers longer, %"].small[-1] == "n 3"
    assert "Prefers lists, %" not in cells, "one pair is no basis for an interval"


def test_agreement_with_gold(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    keys = {"method": "m", "sample": 0, "instruction": list("abcd")}
    judge = pd.DataFrame({**keys, "preference": [1.0, 2.0, 1.5, 2.0]})
    gold = pd.DataFrame({**keys, "preference": [1.0, 1.0, 2.0, np.nan]})
    section = annotators.section(_folder(tmp_path, judged={"judge": judge, "gold": gold}))
    place = [c.head for c in section["table"].columns].index("Agrees with gold, %")
    cell = section["table"].rows[0][place]
    assert (cell.text, cell.small[-1]) == ("50.0", "n 3")  # same, other, a tie against a verdict
    utilities = judge.assign(gold_1=[1.0, 0, 0, 0], gold_2=[0.0, 1, 1, 1])
    section = annotators.section(_folder(tmp_path, preferences=utilities))
    assert section["table"].rows[0][place].text == "87.5"


def test_examples_do_not_depend_on_the_order_of_rows(make_run: Callable[..., Path]) -> None:
    run = RunFolder.read(make_run(instructions=40))
    palette = Palette(run.methods, "sft")
    mixed = {role: t.sample(frac=1, random_state=3) for role, t in run.judged.items()}
    from dataclasses import replace

    shuffled = replace(run, outputs=run.outputs.sample(frac=1, random_state=2), judged=mixed)
    assert examples.section(run, palette, 5) == examples.section(shuffled, palette, 5)
    other_seed = replace(run, config={**run.config, "seed": 2})
    assert examples.section(run, palette, 5) != examples.section(other_seed, palette, 5)


def test_examples_show_the_verdicts(make_run: Callable[..., Path]) -> None:
    run = RunFolder.read(make_run(instructions=10))
    section = examples.section(run, Palette(run.methods, "sft"), 10)
    card = next(c for c in section["examples"][4]["cards"] if c["method"] == "ppo")
    asked = section["examples"][4]["instruction"]
    table = run.judged["judge"]
    row = table[(table["method"] == "ppo") & (table["instruction"] == asked) & (table["sample"] == 0)].iloc[0]
    assert card["text"] == row["output_2"] and section["examples"][4]["baseline"] == row["output_1"]
    side = {1.0: "loss", 2.0: "win"}.get(row["preference"], "none")
    assert card["verdicts"][0]["side"] == side


def test_long_texts_are_cut(make_run: Callable[..., Path]) -> None:
    text = _written(make_run(instructions=25, texts=lambda text: text + " word" * 4000))
    assert len(text.encode()) < 1_000_000 and "more characters)" in text


def test_times_add_up(make_run: Callable[..., Path]) -> None:
    run = RunFolder.read(make_run(instructions=10))
    section = expenses.section(run, Palette(run.methods, "sft"))
    seconds = {s["stage"]: s["seconds"] for s in run.costs["stages"]}
    assert expenses.totals(run)["seconds"] == pytest.approx(sum(seconds.values()))
    names = [row[0].text for row in section["table"].rows]
    assert names[:3] == ["pairs", "annotation", "reward model"] and set(names[3:]) == set(run.methods)
    assert section["stages"] == len(seconds) and section["reused"] == 1


def test_what_an_evaluator_puts_first_is_said_after_the_first_place(make_run: Callable[..., Path]) -> None:
    """In a game the highest win rate against the baseline is not the answer."""
    run = make_run()
    said = [{"headline": "Nearest to an equilibrium: <b>nash_md</b>."}]
    (run / "headlines.json").write_text(json.dumps(said))
    sentences = summary.sentences(RunFolder.read(run))
    assert "comes first" in sentences[1] and sentences[2] == said[0]["headline"]
    assert "&lt;b&gt;nash_md&lt;/b&gt;" in _written(run)


def test_the_summary_names_who_does_not_beat_the_baseline(make_run: Callable[..., Path]) -> None:
    methods = {"sft": (0.0, 0.0, 0.0, 1), "good": (1.2, 1.0, 2.0, 1), "bad": (-1.0, 1.0, 2.0, 1)}
    said = " ".join(summary.sentences(RunFolder.read(make_run(methods=methods, instructions=60))))
    assert re.search(
        r"By the gold annotator, bad \([\d.]+.% \[[^]]+\]\) is not shown to beat the baseline; the other", said
    )
    assert "good comes first" in said and "more than chance would explain" in said


# --- the command ------------------------------------------------------------------------------------------------------


def _farm(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["farm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(instructions=10)
    assert _farm(monkeypatch, "report", str(run)) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert _farm(monkeypatch, "report", str(run), "--json", "--open", "--examples", "2") == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(run / "report.html")
    assert opened == [(run / "report.html").as_uri()]
    assert (run / "report.html").read_text().count('<details class="example"') == 2


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", None, "not a run folder"),
        ("config.yaml", "a: [", "config.yaml line 1: expected the node content"),
        ("config.yaml", "- a", "expected a mapping"),
        ("leaderboard.json", "[{", "leaderboard.json: line 1"),
        ("leaderboard.json", "[{}]", "`method` is missing"),
        ("costs.json", "[]", "costs.json: expected an object"),
        ("metrics.jsonl", "{}\nnonsense\n", "metrics.jsonl: line 2"),
        ("tables/outputs.parquet", "nonsense", "outputs.parquet: not a readable parquet"),
    ],
)
def test_a_wrong_folder_is_one_sentence(
    make_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str | None,
    said: str,
) -> None:
    run = make_run(instructions=4)
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    assert _farm(monkeypatch, "report", str(run)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


def test_the_command_loads_no_class_of_a_stranger(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(instructions=4)
    (run / "trap.py").write_text("raise SystemExit('sprung')")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("eval.report.html.Html", "trap.Html"))
    assert _farm(monkeypatch, "report", str(run)) == 0


def test_the_command_is_light() -> None:
    heavy = {"pandas", "numpy", "jinja2", "torch"}
    code = f"import sys, eval.face.report_commands; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
