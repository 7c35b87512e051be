"""Alarms and trackers: what warns, what stops, and what is written."""

from __future__ import annotations

import json
import sqlite3
import sys
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from farm.base.errors import Alarm, UserError, show_alarms_plainly
from farm.experiments.alarms import PATIENCE, Alarms
from farm.experiments.trackers import tracker


def test_a_quiet_training_is_left_alone():
    alarms = Alarms("ppo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(50):
            alarms({"step": step, "loss": -0.1, "kl": 5.0, "truncated_share": 0.9, "equal_groups": 0.5})


@pytest.mark.parametrize("metric", ["loss", "kl", "reward"])
def test_what_is_not_finite_stops(metric):
    with pytest.raises(UserError, match=f"{metric} is nan at step 3"):
        Alarms("ppo")({"step": 3, metric: float("nan")})


def test_a_diagnostic_that_is_not_finite_only_warns():
    with pytest.warns(UserWarning, match="explained_variance"):
        Alarms("ppo")({"step": 0, "explained_variance": float("nan")})


def test_a_kl_that_runs_away_warns_once_and_then_stops():
    alarms = Alarms("ppo")
    with pytest.warns(UserWarning, match="60 nats"):
        alarms({"step": 1, "kl": 60.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarms({"step": 2, "kl": 70.0})
    with pytest.raises(UserError, match="the training diverges"):
        alarms({"step": 3, "kl": 600.0})


def test_preferred_responses_that_are_lost_warn_and_then_stop():
    alarms = Alarms("dpo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarms({"step": 0, "chosen_log_ratio": -40.0, "rejected_log_ratio": -400.0})  # the margin may lie there
    with pytest.warns(Alarm, match="60 nats less likely"):
        alarms({"step": 1, "chosen_log_ratio": -60.0})
    with pytest.raises(UserError, match="at step 2 the preferred responses have become 780 nats less likely"):
        alarms({"step": 2, "chosen_log_ratio": -780.0})


def test_on_the_command_line_an_alarm_is_its_sentence_and_other_warnings_are_as_ever(monkeypatch):
    before = warnings.formatwarning
    monkeypatch.setattr(warnings, "formatwarning", before)
    show_alarms_plainly()
    once = warnings.formatwarning
    show_alarms_plainly()
    assert warnings.formatwarning is once  # a thousand commands in one process end in no recursion
    with pytest.warns(Alarm) as told:
        Alarms("ppo")({"step": 1, "kl": 60.0})
    shown = [warnings.formatwarning(w.message, w.category, w.filename, w.lineno) for w in told]
    assert shown == ["farm: warning: ppo: the KL to the SFT policy is 60 nats at step 1; beta may be too small\n"]
    other = UserWarning("of a library"), UserWarning, "library.py", 3
    assert warnings.formatwarning(*other) == before(*other)


def test_groups_without_a_difference_stop_in_the_end():
    alarms = Alarms("grpo")
    with pytest.warns(UserWarning, match="at step 0"):
        alarms({"step": 0, "equal_groups": 1.0})
    for step in range(1, PATIENCE - 1):
        alarms({"step": step, "equal_groups": 1.0})
    alarms({"step": PATIENCE, "equal_groups": 0.5})  # the row is broken
    for step in range(PATIENCE - 1):
        alarms({"step": step, "equal_groups": 1.0})
    with pytest.raises(UserError, match=f"in {PATIENCE} steps"):
        alarms({"step": 99, "equal_groups": 1.0})


def test_answers_that_never_end_are_told_once_and_never_stop():
    alarms = Alarms("ppo")
    with pytest.warns(UserWarning, match="raise max_new_tokens") as told:
        for step in range(3 * PATIENCE):
            alarms({"step": step, "truncated_share": 1.0})
    assert len(told) == 1


def test_no_tracker_is_asked_for(monkeypatch):
    monkeypatch.delenv("FARM_TRACKER", raising=False)
    with tracker("dpo") as write:
        write({"step": 0, "loss": 1.0})


def test_an_unknown_tracker_is_named(monkeypatch):
    monkeypatch.setenv("FARM_TRACKER", "comet:x")
    with pytest.raises(UserError, match="tensorboard:FOLDER"), tracker("dpo"):
        pass


def test_tensorboard_gets_every_metric(monkeypatch, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("FARM_TRACKER", f"tensorboard:{tmp_path}")
    with tracker("dpo") as write:
        write({"step": 0, "loss": 1.0})
        write({"step": 1, "loss": 0.5})
    events = accumulator.EventAccumulator(str(tmp_path / "dpo"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(0, 1.0), (1, 0.5)]


def test_trackio_gets_every_metric_at_its_step(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    monkeypatch.setenv("FARM_TRACKER", "trackio:farm")
    for run in ("dpo", "ppo"):
        with tracker(run) as write:
            write({"step": 3, "loss": 1.0})
            write({"step": 7, "loss": 0.5})
    with sqlite3.connect(tmp_path / "farm.db") as kept:
        rows = kept.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert [(run, step, json.loads(said)) for run, step, said in rows] == [
        (run, step, {"loss": loss}) for run in ("dpo", "ppo") for step, loss in ((3, 1.0), (7, 0.5))
    ]


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_trackers_that_cannot_be_had_here_are_called_as_they_are_documented(kind, monkeypatch):
    told = []

    def called(name):
        return lambda *arguments, **named: told.append((name, *arguments, *sorted(named.items()))) or nullcontext()

    known = "init log finish" if kind == "wandb" else "set_experiment start_run log_metrics"
    monkeypatch.setitem(sys.modules, kind, SimpleNamespace(**{name: called(name) for name in known.split()}))
    monkeypatch.setenv("FARM_TRACKER", f"{kind}:farm")
    with tracker("dpo") as write:
        write({"step": 3, "loss": 1.0})
    begin = [("init", ("name", "dpo"), ("project", "farm"))]
    if kind == "mlflow":
        begin = [("set_experiment", "farm"), ("start_run", ("run_name", "dpo"))]
    log = ("log" if kind == "wandb" else "log_metrics", {"loss": 1.0}, ("step", 3))
    assert told == [*begin, log, *([("finish",)] if kind == "wandb" else [])]


def test_of_several_processes_only_the_first_writes_to_a_tracker(tmp_path, monkeypatch):
    monkeypatch.setenv("FARM_TRACKER", f"tensorboard:{tmp_path}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with tracker("ppo") as track:
        track({"step": 0, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []
