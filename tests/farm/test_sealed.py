"""Folders that appear whole or not at all: damage is found and made again, and what a kill left is found too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from farm.storage import old_artifacts, sealed
from farm.storage.artifacts import Artifacts, Place
from tests.farm.table_world import same, write


def flip(path: Path, at: int) -> None:
    """Turn one bit of a file, without a trace in its size or its time."""
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << (at % 8)
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_known", {})
    monkeypatch.setattr("farm.base.progress._said", set())


def go(out: str) -> None:
    sealed._known.clear()  # a new process reads every file anew
    StudyRunner(experiment.load("table.yaml"), Path(out)).go()


DAMAGE = {
    "dpo answers": ("outputs.parquet", "flipped"),
    "dpo": ("model/*", "flipped"),
    "responses": ("responses.parquet", "cut off"),
    "judge judges dpo": ("stage.json", "cut off"),
    "reward model": ("files.json", "flipped"),
    "pairs": ("pairs.parquet", "removed"),
}


def test_what_is_damaged_is_made_again_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    write(tmp_path)
    go("run")
    notes = (tmp_path / "home" / "artifacts").glob("*/stage.json")
    folders = {str(json.loads(note.read_text())["name"]): note.parent for note in notes}
    for stage, (file, damage) in DAMAGE.items():
        path = max(folders[stage].glob(file), key=lambda p: p.stat().st_size)
        if damage == "flipped":
            flip(path, path.stat().st_size // 2)
        elif damage == "cut off":
            path.write_bytes(path.read_bytes()[:-40])
        else:
            path.unlink()
    capsys.readouterr()
    go("again")
    said = [line for line in capsys.readouterr().err.splitlines() if "made again" in line]
    assert len(said) == len(DAMAGE)
    for stage, (file, _) in DAMAGE.items():
        (line,) = (line for line in said if f"{folders[stage].name}:" in line)
        assert file.rstrip("*") in line
    found = {s["stage"]: s["found"] for s in json.loads(Path("again/costs.json").read_text())["stages"]}
    assert {name for name, there in found.items() if not there} == set(DAMAGE)
    assert all(sealed.flaw(folder) is None for folder in folders.values())
    same(tmp_path / "run", tmp_path / "again")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), which=st.integers(0, 3))
def test_any_flipped_bit_is_found(at: int, which: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("place") / "folder"
    with sealed.written(folder) as new:
        pd.DataFrame({"x": range(9)}).to_parquet(new / "table.parquet")
        (new / "model").mkdir()
        (new / "model" / "weights").write_bytes(bytes(300))
        (new / "stage.json").write_text("{}")
    sealed._known.clear()
    assert sealed.flaw(folder) is None
    sealed._known.clear()
    path = sorted(p for p in folder.rglob("*") if p.is_file())[which]
    flip(path, at)
    assert sealed.flaw(folder) is not None or (path.name == sealed.NOTE and _says_the_same(folder))


def _says_the_same(folder: Path) -> bool:
    """A bit of white space between two words of JSON may turn into other white space."""
    return all(
        (folder / name).stat().st_size == size
        for name, (size, _) in json.loads((folder / sealed.NOTE).read_text()).items()
    )


def test_a_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(tmp_path)

    def work(place: Place) -> None:
        (place.folder / "table").write_bytes(bytes(1000))

    artifacts.make("x", "0" * 32, work)
    folder = artifacts.folder("x", "0" * 32)
    flip(folder / "table", 0)
    assert artifacts.done("x", "0" * 32), "it was read when it was written"
    sealed._known.clear()
    assert not artifacts.done("x", "0" * 32) and artifacts.there("x", "0" * 32)
    (folder / "table").write_bytes(bytes(999))
    assert not artifacts.there("x", "0" * 32)


def test_files_reach_the_disk_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut leaves what was synchronised; so every file and folder is, and only then comes the new name."""
    order: list[str] = []
    names = {}
    sync, rename = os.fsync, os.rename

    def synced(opened: int) -> None:
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{opened}")))
        sync(opened)

    def renamed(source: Path, target: Path) -> None:
        names["new"] = Path(source).name
        order.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    with sealed.written(tmp_path / "home" / "stage") as new:
        (new / "model").mkdir()
        (new / "model" / "weights").write_bytes(b"x")
    before = order[: order.index("renamed")]
    assert {"model", "weights", "files.json", names["new"]} <= set(before)
    assert order[-1] == "home"


def test_what_a_kill_left_is_listed_wherever_it_lies_and_what_is_under_way_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    code = (
        "import sys, time\nfrom contextlib import ExitStack\nfrom pathlib import Path\n"
        "from farm.experiments import run_folder\nfrom farm.storage import sealed\n"
        "with ExitStack() as held:\n"
        "    for place in map(Path, sys.argv[1:]):\n"
        "        how = run_folder.replaced if 'runs' in place.parts else sealed.unfinished\n"
        "        (held.enter_context(how(place)) / 'half').write_bytes(bytes(100))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    places = [home / "models" / "m", home / "worlds" / "w", tmp_path / "tmp" / "follower", tmp_path / "runs" / "pocket"]
    (tmp_path / "runs" / ".pocket.original").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, places)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert old_artifacts.removable(home, 30) == []
    finally:
        process.kill()
        process.communicate()
    found = old_artifacts.removable(home, 30)
    assert sorted(item.path.name.split(".")[1] for item in found) == ["follower", "m", "pocket", "w"]
    assert [item.size for item in found] == [100] * 4
    old_artifacts.remove(found)
    assert old_artifacts.removable(home, 30) == []
    assert (tmp_path / "runs" / ".pocket.original").is_dir()
