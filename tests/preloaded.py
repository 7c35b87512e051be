"""A program that has imported everything and forks for each command, so that a test does not wait for imports.

Started by `tests/started.py` with a socket as its standard input. A request is four files: what to run (JSON), where to
write standard output and standard error, and where to say the process's number and, when it has ended, its status.
The child runs the installed script `farm` itself, or a file for `python`, as Python would have started it.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys

PACKAGES = ("farm", "annotators", "reference_methods", "eval")
LIBRARIES = ("transformers.models.llama.modeling_llama", "scipy.stats", "pyarrow.parquet", "typer.rich_utils")


def _import_everything() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            with contextlib.suppress(ImportError):  # of an optional library
                importlib.import_module(module.name)


def _wait(status: int, pid: int) -> None:
    """In a process between: say the child's number, and its status when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(status, f"{pid}\n".encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _become(request: dict[str, object], out: int, errors: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    os.chdir(str(request["cwd"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [str(word) for word in request["words"]]  # type: ignore[attr-defined]
    sys.path.insert(0, os.path.dirname(sys.argv[0]) or os.getcwd())
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    _import_everything()
    gc.freeze()
    requests = socket.socket(fileno=0)
    while True:
        _, files, _, _ = socket.recv_fds(requests, 1, 4)
        if not files:
            return
        between = os.fork()
        if between == 0:
            asked, out, errors, status = files
            pid = os.fork()
            if pid:
                _wait(status, pid)
            with os.fdopen(asked) as file:
                request = json.load(file)
            os.close(status)
            _become(request, out, errors)
            return
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


main()
