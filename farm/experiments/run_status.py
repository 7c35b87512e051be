"""How far a run has got: a small file in the run folder while it runs, and how `farm status` reads it.

The file names the stages; whether one is done is read from the artifacts themselves, so that a run that was killed is
shown as it is. It is written anew at most twice a second, however many stages there are.
"""

from __future__ import annotations

import json
import os
import socket
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from farm.base import files
from farm.base.errors import UserError
from farm.experiments import run_tables
from farm.scheduling.estimate import Estimator, duration
from farm.scheduling.graph import Graph, Node
from farm.scheduling.scheduler import Failure
from farm.storage.artifacts import Artifacts

FILE = "status.json"
_EVERY = 0.5  # seconds
_FEW = 1000
_INDENT = 9
"""columns of the labels of `farm status`"""


class StatusFile:
    """Writes ``status.json`` of a run that is under way; a watcher of the scheduler."""

    def __init__(self, folder: Path, name: str, graph: Graph, artifacts: Artifacts, slots: int) -> None:
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        estimate = Estimator(artifacts.timings())
        self._facts: dict[str, Any] = {
            "name": name,
            "state": "running",
            "started": time.time(),
            "process": os.getpid(),
            "host": socket.gethostname(),
            "artifacts": str(artifacts.root.resolve()),
            "at_once": slots,
        }
        self._stages: dict[str, dict[str, Any]] = {
            key: {
                "name": n.name,
                "kind": n.kind,
                "folder": artifacts.folder(n.name, key).name,
                "state": "to do",
                "estimate": estimate(n).seconds,
            }
            for key, n in graph.items()
        }
        self._last = 0.0
        self.write()

    def watch(self, state: str, node: Node, failure: Failure | None) -> None:
        stage = self._stages[node.key]
        stage["state"] = {"started": "running"}.get(state, state)
        stage["time"] = time.time()
        if failure is not None:
            stage["reason"] = failure.reason
            if failure.because is not None:
                stage["state"] = "blocked"
        # Of few stages every change is written: the last one before a long stage would else stay unsaid until its end.
        if len(self._stages) <= _FEW or time.monotonic() - self._last > _EVERY:
            self.write()

    def end(self, state: str) -> None:
        """The last word: "finished", "failed" or "interrupted"."""
        self._facts["state"], self._facts["ended"] = state, time.time()
        self.write()

    def write(self) -> None:
        self._last = time.monotonic()
        new = self.path.with_name(f".{FILE}.{os.getpid()}")
        try:
            new.write_text(json.dumps({**self._facts, "stages": list(self._stages.values())}))
            os.replace(new, self.path)
        except OSError:  # what is only shown must not stop what is made
            new.unlink(missing_ok=True)


_Time = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Word = Annotated[str, Field(max_length=10_000)]


class _Stage(BaseModel):
    name: _Word
    kind: _Word
    folder: Annotated[str, Field(pattern=r"^[^/\x00]*[^/\x00.][^/\x00]*$", max_length=255)]
    state: Literal["to do", "running", "done", "found", "failed", "blocked"]
    estimate: _Time | None
    time: _Time | None = None
    reason: str = ""


class _Status(BaseModel):
    """What is read of the file; whoever edited it may have written anything."""

    name: _Word
    state: Literal["running", "finished", "failed", "interrupted"]
    started: _Time
    ended: _Time | None = None
    process: Annotated[int, Field(ge=1, lt=2**31)]
    host: _Word
    artifacts: Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=4_000)]
    at_once: Annotated[int, Field(ge=1, le=1_000_000)]
    stages: list[_Stage]


class _Progress(BaseModel):
    done: Annotated[int, Field(ge=0, le=10**15)] | _Time
    total: Annotated[int, Field(ge=0, le=10**15)] | _Time | None = None
    note: str = ""


def read(folder: Path) -> dict[str, Any]:
    """The state of a run, with what the artifacts say now; of a paper ``state``, and of each of its ``experiments``.

    Raises:
        UserError: where no run is or was under way, or the file is not what a run writes.
    """
    path = folder / FILE
    if not files.exists(path):
        begun = sorted((folder / "runs").glob(f"*/{FILE}")) if files.exists(folder / "runs") else []
        if begun:
            return _of_paper(folder, {file.parent.name: read(file.parent) for file in begun})
        raise UserError(f"{folder}: no run is or was under way here (it has no {FILE})")
    found = run_tables.mapping(path)
    run_tables.conforming(_Status, found, path, strict=True)
    root = Path(found["artifacts"])
    for stage in found["stages"]:
        place = root / stage["folder"]
        if stage["state"] in ("running", "to do") and (place / "stage.json").is_file():
            stage["state"] = "done"
        elif stage["state"] == "running":
            stage["progress"] = _progress(place.with_name(place.name + ".partial") / "progress.json")
    if found["state"] == "running" and found["host"] == socket.gethostname() and not _alive(found["process"]):
        found["state"] = "stopped"
    if found["state"] == "running":
        found["seconds_left"] = _left(found)
    return {"run": str(folder), **found}


def _of_paper(folder: Path, experiments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of the experiments of a paper, made one after the other; those that have not begun are not there yet."""
    from farm.experiments.claims.recorded import FILE as CLAIMS

    state = next((found["state"] for found in experiments.values() if found["state"] != "finished"), "finished")
    if state == "finished" and not (folder / CLAIMS).is_file():  # between two of them, or before the claims
        last = max(experiments.values(), key=lambda found: found["started"])
        here = last["host"] == socket.gethostname()
        state = "running" if not here or _alive(last["process"]) else "stopped"
    return {"run": str(folder), "state": state, "experiments": experiments}


def _progress(file: Path) -> dict[str, Any] | None:
    try:
        return _Progress.model_validate_json(file.read_bytes(), strict=True).model_dump(exclude_unset=True)
    except (OSError, ValueError):
        return None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _left(found: dict[str, Any]) -> float | None:
    """Seconds to go, from the records of earlier stages, else from this run's rate; None before either is known."""
    stages = found["stages"]
    waiting = [s for s in stages if s["state"] in ("to do", "running")]
    if not waiting:
        return 0.0
    known = [s["estimate"] for s in waiting if s["estimate"] is not None]
    passed = time.time() - found["started"]
    made = sum(s["state"] == "done" for s in stages)
    typical = sum(known) / len(known) if known else passed * found["at_once"] / made if made else None
    if typical is None:
        return None
    left = 0.0
    for stage in waiting:
        whole = stage["estimate"] if stage["estimate"] is not None else typical
        if stage["state"] == "running":
            progress = stage.get("progress")
            share = progress["done"] / progress["total"] if progress and progress.get("total") else 0.0
            since = time.time() - _begun(found, stage)
            whole = max(since / share - since, 0.0) if share > 0.05 else max(whole - since, 0.0)
        left += whole
    return left / min(found["at_once"], len(waiting))


def lines(found: dict[str, Any]) -> list[str]:
    """What `farm status` prints."""
    if "experiments" in found:
        each = [[f"{name}:", *(f"  {line}" for line in lines(one))] for name, one in found["experiments"].items()]
        return [f"{Path(found['run']).name}: {_state(found)}", *(line for said in each for line in said)]
    stages = found["stages"]
    count = {
        state: sum(s["state"] == state for s in stages)
        for state in ("done", "found", "running", "failed", "blocked", "to do")
    }
    done = count["done"] + count["found"]
    end = found.get("ended") or time.time()
    passed = max(end - found["started"], 1e-9)
    left = (
        f"{count['running']} under way",
        f"{count['failed']} failed",
        f"{count['blocked']} cannot be made without what failed" if count["blocked"] else "",
        f"{count['to do']} to do",
    )
    out = [
        f"{found['name']}: {_state(found)}",
        f"stages   {done} of {len(stages)} done ({count['found']} of them found)",
        *_said("", ", ".join(said for said in left if said)),
        f"time     {duration(passed)}, {60 * count['done'] / passed:.1f} stages a minute",
    ]
    if found.get("seconds_left") is not None:
        out.append(f"left     about {duration(found['seconds_left'])}")
    for stage in stages:
        if stage["state"] == "running":
            progress = stage.get("progress") or {}
            of = f" of {progress['total']}" if progress.get("total") else ""
            steps = f"  {progress['done']}{of}" if progress else ""
            out.append(f"now      {stage['name']}{steps}, for {duration(time.time() - _begun(found, stage))}")
            if progress.get("note"):
                out += _said("", progress["note"])
    for stage in stages:
        if stage["state"] == "failed":
            out += _said("failed", f"{stage['name']}: {stage.get('reason', '')}")
    return out


def _state(found: dict[str, Any]) -> str:
    return str(found["state"]) + ("" if found["state"] in ("finished", "running") else "; the same command goes on")


def _begun(found: dict[str, Any], stage: dict[str, Any]) -> float:
    return float(stage.get("time") or found["started"])


def _said(label: str, text: str) -> list[str]:
    """Lines of at most 80 columns with a label before the first."""
    # The numbers of a step are separated by two blanks; a number stays with its name.
    words = [part.replace(" ", "\0") for part in text.split("  ")] if "  " in text else [text]
    folded = textwrap.wrap("  ".join(words), 80 - _INDENT, break_long_words=False, break_on_hyphens=False)
    return [f"{'' if n else label:<{_INDENT}}{line}".replace("\0", " ") for n, line in enumerate(folded)]
