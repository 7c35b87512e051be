"""Which source a class depends on: a digest of its module and of everything that this imports within its package.

A changed method is never served a stale result, and a changed neighbour that it does not import costs nothing. Imports
are read from the source, those inside functions too, and never executed for it. Files that are not Python and lie
in the folder of a followed module, or below it outside of any other package, count with it (prompts, tables).

What is loaded under a name made up at run time is not seen; a class that a spec names has a digest of its own.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import inspect
import linecache
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from farm.base.errors import UserError

_GROUND = (
    "asking/ask.py",
    "asking/kept.py",
    "feedback",
    "base/rng.py",
    "tables",
    "roles/protocols.py",
    "roles/users.py",
    "hardware",
    "engines",
    "policies",
    "experiments/making.py",
    "experiments/setting.py",
    "experiments/stages/learning.py",
    "experiments/stages/stage.py",
)
"""What of the ground, rooms and files, can change the result of any stage; a world counts where it is used"""
_PLUMBING = {
    "farm",
    "farm.roles.classes",
    "farm.roles.config",
    "farm.roles.named_configs",
    "farm.base.errors",
    "farm.base.progress",
    "farm.storage.sealed",
    "farm.storage.store",
}
"""Parts of the ground that carry results and cannot change them"""
_DATA = {".yaml", ".yml", ".json", ".txt", ".csv", ".j2", ".tsv"}


@cache
def code_digest(name: str) -> str:
    """A digest of the source behind a module, as an import path; of ``farm`` alone: of what every stage depends on."""
    if name == "farm":
        files = list(_ground_files())
    else:
        module = sys.modules.get(name) or importlib.import_module(name)
        files = list(_followed(Path(str(module.__file__)), name))
    digest = hashlib.blake2b(digest_size=8)
    for label, source in sorted(set(files)):
        digest.update(label.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def file_digest(module: str) -> str:
    """A digest of a module's own file, whatever it imports."""
    return hashlib.blake2b(Path(str(sys.modules[module].__file__)).read_bytes(), digest_size=8).hexdigest()


def class_digest(path: str) -> str:
    """The digest of the code behind a class, given as in YAML: ``package.module.Class``."""
    module, _, name = path.rpartition(".")
    if module == "__main__" or getattr(sys.modules.get(module), "__file__", "") is None:
        return _of_source(path, getattr(sys.modules.get(module), name, None))
    return code_digest(module or path)


def _of_source(path: str, cls: Any) -> str:
    """The digest of a class that a script or a notebook defines: of its own source alone."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        source = _of_cell(cls)
    if not source:
        raise UserError(f"{path}: its source is not to be found; put the class into a file of its own")
    return hashlib.blake2b(source.encode(), digest_size=8).hexdigest()


def _of_cell(cls: Any) -> str:
    """The source of a class that a notebook's cell defines; empty where it is not found.

    Python looks for it in the file of ``__main__``, which a notebook has not. Its functions know their cell.
    """
    for function in vars(cls).values() if isinstance(cls, type) else ():
        code = getattr(function, "__code__", None)
        cell = "".join(linecache.getlines(code.co_filename)) if code is not None else ""
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse(cell)):
                if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                    return ast.unparse(node)
    return ""


def with_code(description: Any) -> Any:
    """A description of specs with the digest of the code behind every ``class`` in it."""
    if isinstance(description, dict):
        out = {name: with_code(value) for name, value in description.items()}
        if isinstance(description.get("class"), str):
            out["code"] = class_digest(description["class"])
        return out
    if isinstance(description, (list, tuple)):
        return [with_code(item) for item in description]
    return description


def _ground_files() -> Iterator[tuple[str, Path]]:
    """(label, file) of all that is listed. A listed part that is missing is an error: its changes would go unseen."""
    root = Path(__file__).parents[1]
    for name in _GROUND:
        files = [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py"))
        if not files or not all(file.is_file() for file in files):
            raise RuntimeError(
                f"farm/storage/code_digest.py lists `{name}`, which is not in {root}: name where it is now"
            )
        yield from ((str(file.relative_to(root)), file) for file in files)


def _followed(start: Path, module: str) -> Iterator[tuple[str, Path]]:
    """(label, file) of the module and of all it imports from below the same root, with their data files."""
    package = module.split(".")[0]
    root = _root(start, module)
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(root, name)
        if name in seen or name in _PLUMBING or file is None:
            continue
        seen.add(name)
        yield str(file.relative_to(root)), file
        within = name.split(".")[0] == package and file.parent != root
        if within and file.name != "__init__.py":
            yield from ((str(data.relative_to(root)), data) for data in _data_below(file.parent))
        parts = name.split(".")
        waiting += [".".join(parts[:n]) for n in range(1, len(parts))]
        for imported in _imports(file, name):
            # A module of one file stands beside others of its kind; a package keeps to itself, and the ground counts
            # for every stage anyway, except for what only some worlds use.
            top = imported.split(".")[0]
            if top == package or (start.parent == root and top != "farm"):
                waiting.append(imported)


def _root(file: Path, module: str) -> Path:
    depth = len(module.split(".")) - (0 if file.name == "__init__.py" else 1)
    root = file.parent
    for _ in range(depth):
        root = root.parent
    return root


def _file(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _imports(file: Path, module: str) -> tuple[str, ...]:
    """The absolute names a file imports; of ``from a import b`` both a and a.b, of which the latter may be no module.

    Imports for type checkers alone are followed too: leaving them out would take a judgement that could be wrong.
    """
    found: list[str] = []
    parents = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(name for name in found if name))


@cache
def _data_below(folder: Path) -> tuple[Path, ...]:
    """Data files in a folder and in those of its folders that are no packages themselves."""
    files = [f for f in folder.iterdir() if f.is_file() and f.suffix in _DATA]
    for below in folder.iterdir():
        if below.is_dir() and not below.name.startswith((".", "__")) and not (below / "__init__.py").exists():
            files += _data_below(below)
    return tuple(sorted(files))
