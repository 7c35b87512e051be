"""The class at an import path, which may lie in a module beside the YAML that names it.

A module is a program, and importing it runs it. What its text already shows to be of no use is refused before that: a
name that it does not bind, or a class that lacks what its role asks for.
"""

from __future__ import annotations

import ast
import importlib
import keyword
import sys
import types
from importlib.machinery import PathFinder
from pathlib import Path

from farm.base.errors import UserError, nearest, shadowed


def import_class(path: str, role: type, origin: str, folder: Path | None = None) -> type:
    """The class at an import path. Refused unless it fulfils the role; a module in ``folder`` is found too."""
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() and not keyword.iskeyword(part) for part in path.split(".")):
        raise UserError(f"{origin}: class {path[:80]!r} is not an import path like package.module.Class")
    if module_name not in sys.modules:
        _refuse_unrun(module_name, name, role, origin, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        beside = _beside(module_name, folder) if folder else None
        if beside is None:
            if (hidden := shadowed(module_name)) is not None:
                raise hidden from error
            missing = error.name or module_name
            if not module_name.startswith(missing):
                raise UserError(
                    f"{origin}: class `{path}` needs the package {missing}, which is not installed (see `farm doctor`)"
                ) from error
            raise UserError(f"{origin}: class `{path}`: there is no module {missing}") from error
        module = beside
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"{origin}: module {module_name} has no class `{name}`; {nearest(name, _public(module))}")
    if not isinstance(found, type):
        raise UserError(f"{origin}: class `{path}` cannot play the role {role.__name__}: it is not a class")
    own = {m for m in _members(role) if any(m in vars(base) for base in found.__mro__)}  # each class can be called
    _check(role, own | _annotations(found), path, origin)
    return found


def _check(role: type, has: set[str], path: str, origin: str) -> None:
    if lacking := sorted(_members(role) - has):
        raise UserError(f"{origin}: class `{path}` cannot play the role {role.__name__}: it lacks `{lacking[0]}`")


def _refuse_unrun(module_name: str, name: str, role: type, origin: str, folder: Path | None) -> None:
    """Refuse what a module's text shows to be no class for a role, without running the module."""
    file = _file(module_name, None) or (_file(module_name, [str(folder)]) if folder else None)
    if file is None:
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{origin}: {file}{line} is not Python ({getattr(error, 'msg', error)})") from error
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if not {name, "*", "__getattr__"} & _bound(tree):
        raise UserError(f"{origin}: module {module_name} has no class `{name}`; {nearest(name, classes)}")
    found = classes.get(name)
    own = found and not found.bases and not found.keywords and all(map(_of_data, found.decorator_list))
    if found and own:  # else it may have more than is written there
        _check(role, _bound(found), f"{module_name}.{name}", origin)


def _file(module_name: str, places: list[str] | None) -> Path | None:
    """The source file of a module, found without running a package around it."""
    parts = module_name.split(".")
    file = None
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), places)
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            return None
        file, places = spec.origin, list(spec.submodule_search_locations or [])
    return Path(file) if file and file.endswith(".py") else None


def _of_data(decorator: ast.expr) -> bool:
    return "dataclass" in ast.unparse(decorator)


def _bound(tree: ast.AST) -> set[str]:
    """The names that a text binds anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _beside(module_name: str, folder: Path) -> types.ModuleType | None:
    if not (folder / (module_name.split(".")[0] + ".py")).is_file():
        return None
    place = str(folder.resolve())  # Python remembers what a relative path meant where the process began
    importlib.invalidate_caches()
    sys.path.insert(0, place)
    try:
        return importlib.import_module(module_name)
    finally:
        sys.path.remove(place)


def _public(module: types.ModuleType) -> list[str]:
    return [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]


def _members(role: type) -> set[str]:
    named = {n for n in vars(role) if not n.startswith("_") or n == "__call__"}
    return named | set(vars(role).get("__annotations__", {}))


def _annotations(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
