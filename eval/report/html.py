"""The report: one self-contained HTML file made from a run folder alone.

Nothing is loaded from a network: the charts are SVG that this package draws (the bundle of a chart library weighs
megabytes). The little script sorts tables and searches the examples; without it all is there, unsorted.
Text of models and users is data: it is escaped, control characters that could rearrange it are spelt out, and the
page's own content security policy lets no script run but the report's.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval.report import (
    agreement,
    annotators,
    categories,
    charts,
    dialogues,
    examples,
    expenses,
    leaderboard,
    learning,
    paper,
    study,
    summary,
    validation,
    wording,
)
from eval.report.folder import BASELINE, RunFolder
from eval.report.tables import Palette
from farm.base import files
from farm.base.bounds import Bounded, Natural
from farm.base.markup import visible

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Html(Bounded):
    """Writes ``report.html``.

    Args:
        examples: how many held-out instructions are shown with all their answers, drawn at random.
    """

    examples: Natural = 20

    def write(self, run: Path) -> Path:
        """Write the report into the run folder, in the place of an earlier one.

        Raises:
            UserError: for a folder that is not a run folder, or has a file that cannot be read.
        """
        if (run / paper.FILE).is_file():
            shown = paper.sections(run)
            page = page_environment().get_template("paper.html.j2").render(**shown, **page_files())
        elif (run / study.MARK).is_file():
            page = self.render_study(study.StudyFolder.read(run))
        else:
            page = self.render(RunFolder.read(run))
        path = run / "report.html"
        files.write_text(path, page, errors="xmlcharrefreplace")  # half a surrogate pair can be no UTF-8
        return path

    def render_study(self, run: study.StudyFolder) -> str:
        """The page of a sweep or of replicates as text."""
        return study.page(run, page_environment(), page_files())

    def render(self, run: RunFolder) -> str:
        """The page as text."""
        palette = Palette(run.methods, BASELINE)
        return (
            page_environment()
            .get_template("template.html.j2")
            .render(
                name=run.name,
                about=str(run.config.get("about") or ""),
                sentences=summary.sentences(run),
                figures=summary.figures(run),
                facts=summary.facts(run),
                leaderboard=leaderboard.section(run, palette),
                failures=study.failures(run.failures),
                agreement=agreement.section(run, palette),
                learning=learning.section(run, palette),
                head_to_head=leaderboard.head_to_head(run),
                categories=categories.section(run),
                dialogues=dialogues.section(run),
                validation=validation.section(run),
                overoptimisation=learning.overoptimisation(run, palette),
                annotators=annotators.section(run),
                lengths=agreement.lengths(run, palette),
                differences=leaderboard.differences(run),
                examples=examples.section(run, palette, self.examples),
                expenses=expenses.section(run, palette),
                seed=run.seed,
                version=str(run.environment.get("feedback-farm") or ""),
                environment=_environment_lines(run.environment),
                config_text=run.config_text,
                percent=wording.number(100 * run.confidence, 0),
                gold_key=charts.line_key(False),
                proxy_key=charts.line_key(True),
                **page_files(),
            )
        )


def page_files() -> dict[str, Any]:
    """Style, script and the script's digest, as both pages carry them."""
    script = (HERE / "script.js").read_text(encoding="utf-8")
    return {
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        # A policy names the script by its digest, so that nothing else runs even if an escape were forgotten.
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def page_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
    return environment


def _environment_lines(environment: dict[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in environment.items():
        if isinstance(value, dict):
            lines += [(str(k), str(v)) for k, v in value.items()]
        elif name != "date":
            lines.append((str(name), str(value)))
    return lines
