"""Every command through its real entry point: help with an example, JSON, and mistakes as one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import started


def farm(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return started.run(*arguments, cwd=cwd, env=environment)


def _commands() -> list[str]:
    from farm.cli import _application

    return [c.name or c.callback.__name__ for c in _application().registered_commands]  # type: ignore[union-attr]


def test_help_is_quick_and_stays_clear_of_heavy_libraries() -> None:
    code = (
        "import sys; from farm.cli import _application; _application(); "
        "print([m for m in ('torch', 'transformers', 'vllm', 'ray', 'pandas', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert subprocess.run([started.FARM, "--help"], capture_output=True).returncode == 0


@pytest.mark.parametrize(("said", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_without_using_a_core(said: str | None, expected: str) -> None:
    """Otherwise two threads beside a busy process do a thirtieth of the work of one."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (
        {"OMP_WAIT_POLICY": said} if said else {}
    )
    code = "import sys, os, farm; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [expected, "False"], done.stderr


def test_every_command_has_help_with_an_example() -> None:
    names = _commands()
    assert {"run", "list", "doctor", "annotate", "evaluate", "report"} <= set(names)
    for name in names:
        done = farm(name, "--help")
        assert done.returncode == 0, done.stderr
        assert f"Example: farm {name}" in " ".join(done.stdout.split()), name


def test_list_names_every_config_with_a_line() -> None:
    found = json.loads(farm("list", "--json").stdout)
    assert {"annotators", "methods", "worlds", "experiments"} <= set(found)
    for room, configs in found.items():
        for name, line in configs.items():
            assert line, f"configs/{room}/{name}.yaml has no `about`"


def test_doctor_reports_versions() -> None:
    facts = json.loads(farm("doctor", "--json").stdout)
    assert facts["packages"]["torch"]
    assert "OPENAI_API_KEY" in facts["keys"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "pockt"], "did you mean `pocket`"),
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "pocket", "--set", "sizs.pairs=3"], "unknown key `sizs`; did you mean `sizes`"),
        (["run", "pocket", "--set", "sizes.pairs=many"], "`sizes.pairs` = 'many' is wrong"),
        (["run", "pocket", "--set", "methods.dpo.bta=3"], "unknown key `bta` of DPO; did you mean `beta`"),
        (["run", "pocket", "--set", "annotator=trainin"], "did you mean `training`"),
        (["run", "pocket", "--set", "nonsense"], "write it as key=value"),
        (["list", "annotator"], "did you mean `annotators`"),
        (["annotate", "nowhere.json", "--annotators", "training", "--out", "x.json"], "nowhere.json"),
        (["report", "nowhere"], "nowhere"),
        (["evaluate", "nowhere.json"], "nowhere.json"),
    ],
)
def test_mistakes_are_one_sentence_and_status_two(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = farm(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_is_not_installed_is_named() -> None:
    """Failed, as an unexpected error, for whoever installed farm without language models and typed `farm run`."""
    code = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'farm'; from farm.cli import main; main()"
    words = [sys.executable, "-c", code, "run", "pocket", "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True)
    wanted = (
        "needs the package torch, which is not installed: in the folder of feedback-farm, pip install -e '.[models]'"
    )
    assert (done.returncode, done.stderr) == (2, f"farm: this command {wanted}\n")


def test_debug_shows_the_traceback() -> None:
    done = farm("run", "nowhere.yaml", "--debug")
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


def test_unknown_commands_and_options_exit_with_two() -> None:
    assert farm("frun").returncode == 2
    assert farm("run", "pocket", "--sede", "3").returncode == 2


def test_annotating_by_programmatic_people_imports_nothing_slow(tmp_path: Path) -> None:
    pair = {"instruction": "a", "output_1": "b", "output_2": "c d", "generator_1": "x", "generator_2": "y"}
    (tmp_path / "pairs.json").write_text(json.dumps([pair]))
    code = (
        "import sys; from farm.cli import main\n"
        "sys.argv = ['farm', 'annotate', 'pairs.json', '--annotators', 'evaluation', '--out', 'out.json']\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print([m for m in ('torch', 'scipy.stats', 'scipy.optimize', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
