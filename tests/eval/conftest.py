"""The command line in this process, with a home of its own."""

from __future__ import annotations

import sys

import pytest

from farm import cli


@pytest.fixture
def farm(monkeypatch, capsys, tmp_path_factory):
    """Run a command line; returns (exit status, standard output, error output)."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path_factory.mktemp("home")))

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["farm", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call
