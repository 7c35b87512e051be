"""The command line in this process, its commands loaded once."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from farm import cli
from tests.run_double import made_up

Farm = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def application() -> object:
    return cli._application()


@pytest.fixture
def farm(application: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Farm:
    """Run a command line; returns (exit status, standard output, error output)."""
    monkeypatch.setattr(cli, "_application", lambda: application)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["farm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


def load(name: str) -> ModuleType:
    """A file beside this one as a module, which tests are not."""
    spec = importlib.util.spec_from_file_location(f"wrong_input_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def enumerated() -> ModuleType:
    return load("cases")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, enumerated: ModuleType) -> Path:
    """A good run folder."""
    folder = made_up(tmp_path_factory.mktemp("wrong input") / "run")
    (folder / "status.json").write_text(json.dumps(enumerated.STATUS))
    return folder
