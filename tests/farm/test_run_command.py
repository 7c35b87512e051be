"""What a person sees of `farm run`: some methods only, a stage made again, a method that failed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from farm import cli
from tests.farm.table_world import EXPERIMENT, finish, same, start, write

Run = Callable[..., tuple[int, str, str]]
BROKEN = {"class": "methods_for_test.Broken"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    return write(tmp_path)


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`farm run table.yaml ...` in this process: status, output, error output."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["farm", "run", "table.yaml", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


def made(said: str) -> set[str]:
    """The stages that were made, by the lines of progress."""
    lines = [line.rpartition(":")[0] for line in said.splitlines()]
    return {
        line for line in lines if line.startswith(("training", "answers", "sampling", "asking")) or "judges" in line
    }


def answered(*names: str) -> set[str]:
    """The lines of methods that answer and are judged."""
    lines = {f"{said} {name}" for name in names for said in ("answers of", "judge judges", "gold judges")}
    return lines | ({"answers of the baseline"} if "sft" in names else set())


def methods(folder: Path) -> set[str]:
    return set(pd.read_json(folder / "leaderboard.json")["method"])


def test_only_and_force(place: Path, run: Run) -> None:
    status, shown, said = run("--out", "few", "--only", "dpo")
    assert status == 0
    assert methods(place / "few") == {"sft", "dpo"}
    assert "best_of_n" not in shown + said
    asked = {"sampling responses of sft", "asking for pairs"}
    assert made(said) == {*asked, "training dpo", *answered("sft", "dpo")}  # no reward model

    status, shown, said = run("--out", "all", "--only", "dpo, best_of_n")
    assert status == 0
    # With a reward model its scores stand beside all answers, which are made again, with the verdicts on them.
    assert made(said) == {"training reward_model", "training best_of_n", *answered("sft", "dpo", "best_of_n")}
    assert methods(place / "all") == {"sft", "dpo", "best_of_n"}

    status, shown, said = run("--out", "again", "--force", "dpo")
    assert status == 0
    assert made(said) == {"training dpo", "answers of dpo", "judge judges dpo", "gold judges dpo"}
    same(place / "all", place / "again")

    _, shown, _ = run("--force", "reward_model", "--dry-run")
    ahead = {line[8:48].strip() for line in shown.splitlines() if line.startswith("  to do")}
    assert {"reward model", "best_of_n answers", "judge judges dpo"} <= ahead
    assert not ahead & {"responses", "pairs", "dpo"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--only", "dpoo"), "--only dpoo: there is no such method; did you mean `dpo`"),
        (("--only", ""), "--only : there is no such method; known: best_of_n, dpo"),
        (("--force", "dop"), "--force dop: there is no such stage; did you mean `dpo`"),
    ],
)
def test_a_slip_names_what_there_is(place: Path, run: Run, words: tuple[str, ...], complaint: str) -> None:
    status, _, said = run(*words)
    assert status == 2
    assert complaint in said
    assert not (place / "runs").exists()


def test_ctrl_c_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("farm.experiments.running.schedule", interrupted)
    status, _, said = run("--out", "run")
    assert status == 130
    assert said == "farm: interrupted; what is done is kept, and the same command goes on from here\n"


def test_a_tracker_that_is_not_there_is_told_before_anything_is_made(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_TRACKER", "comet:mine")
    status, _, said = run("--out", "run")
    assert status == 2
    known = "tensorboard:FOLDER, or trackio:PROJECT, wandb:PROJECT, mlflow:PROJECT"
    assert said == f"farm: FARM_TRACKER=comet:mine: say {known}\n"
    monkeypatch.setenv("FARM_TRACKER", "trackio:mine")
    monkeypatch.setitem(sys.modules, "trackio", None)
    status, _, said = run("--out", "run")
    assert status == 2
    assert said == "farm: FARM_TRACKER asks for trackio, which is not installed: pip install trackio\n"
    assert not (place / "run").exists()


def test_a_failed_method_has_a_row_with_its_reason_and_is_tried_again(place: Path) -> None:
    write(place, methods={"dpo": EXPERIMENT["methods"]["dpo"], "broken": BROKEN})
    shown, said = finish(start(place, "home", "--out", "run"), status=1)
    assert [line.split() for line in shown.splitlines() if "broken" in line] == [
        "failed broken: RuntimeError: it was never going to work".split()
    ]
    assert shown.count("win rate") == 1
    assert "broken failed: RuntimeError: it was never going to work; see run/failures.csv" in said
    state, _ = finish(start(place, "home", "run", command="status"))
    assert "1 failed, 3 cannot be made without what failed, 0 to do" in state
    assert [line for line in state.splitlines() if line.startswith("failed")] == [
        "failed   broken: RuntimeError: it was never going to work"
    ]

    # Mended: the same command makes what is lacking and nothing else.
    source = (place / "methods_for_test.py").read_text()
    mended = source.replace("raise RuntimeError(self.sentence)", "return learning.policy")
    assert mended != source
    (place / "methods_for_test.py").write_text(mended)
    shown, said = finish(start(place, "home", "--out", "run"))
    assert made(said) == {"training broken", "answers of broken", "judge judges broken", "gold judges broken"}
    assert methods(place / "run") == {"sft", "dpo", "broken"}
    assert not (place / "run" / "failures.csv").exists()


def test_a_sweep_shows_in_which_setting_a_method_failed(place: Path, run: Run) -> None:
    write(place, methods={"broken": BROKEN, "dpo": EXPERIMENT["methods"]["dpo"]}, sweep={"annotator.rate": [0.0, 0.25]})
    status, shown, said = run("--out", "run")
    assert status == 1
    rows = [line.split() for line in shown.splitlines() if "broken" in line]
    assert [row[:4] for row in rows] == [["failed", "broken", "of", f"rate={r},s1:"] for r in ("0.0", "0.25")]
    assert "broken of rate=0.0,s1 and 1 more failed: RuntimeError" in said
    assert len(json.loads((place / "run" / "failures.json").read_text())) == 2


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "..", "a\\b", "a\tb", "n" * 151, ""])
def test_a_name_stays_below_runs(place: Path, run: Run, name: str) -> None:
    write(place, name=name)
    for words in ((), ("--dry-run",)):
        status, _, said = run(*words)
        assert status == 2
        assert said.startswith(f"farm: table.yaml: the experiment's name {name[:40]!r} cannot be that of a folder")
        assert len(said) < 300
    assert not (place / "runs").exists()


def test_runs_that_end_at_once_in_one_place(place: Path, run: Run) -> None:
    """Each of many processes replaces the same folder; none finds it gone, and the last one stays whole."""
    assert run("--out", "run", "--only", "dpo")[0] == 0
    code = (
        "import sys, shutil, time; from pathlib import Path\n"
        "from farm.experiments import run_folder; from farm.experiments.running import Run\n"
        "Path(sys.argv[1]).touch()\n"
        "while not Path('go').exists(): time.sleep(0.005)\n"
        "for turn in range(60):\n"
        "    with run_folder.replaced(Path('run')) as new:\n"
        "        for n in range(20): (new / f'{n}.json').write_text('{}')\n"
        "        for name in ('environment.json', 'leaderboard.json'): shutil.copy(name, new / name)\n"
        "    assert len(Run(Path('run')).leaderboard) == 2\n"
    )
    for name in ("environment.json", "leaderboard.json"):
        shutil.copy(place / "run" / name, place / name)
    words = [sys.executable, "-c", code]
    both = [subprocess.Popen([*words, f"ready{n}"], cwd=place, stderr=subprocess.PIPE, text=True) for n in range(3)]
    while not all((place / f"ready{n}").exists() for n in range(3)):
        assert all(process.poll() is None for process in both)
    (place / "go").touch()
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert [p.name for p in place.glob(".run.*")] == []
