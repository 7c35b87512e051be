"""Which change of source makes a stage stale, and which does not."""

import importlib
import linecache
import sys
from pathlib import Path

import pytest

from farm.base.errors import UserError
from farm.storage import code_digest as digests


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a method that imports a neighbour, which imports another inside a function."""
    root = tmp_path / "wing_for_test"
    (root / "parts").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "parts" / "__init__.py").write_text("")
    (root / "method.py").write_text("from wing_for_test.parts.losses import loss\nclass Method: ...\n")
    (root / "parts" / "losses.py").write_text("def loss():\n    from . import deep\n    return deep\n")
    (root / "parts" / "deep.py").write_text("x = 1\n")
    (root / "other.py").write_text("y = 1\n")
    (root / "prompts").mkdir()
    (root / "prompts" / "plain.yaml").write_text("text: hello\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield root
    for name in [n for n in sys.modules if n.startswith("wing_for_test")]:
        del sys.modules[name]


def digest() -> str:
    digests.code_digest.cache_clear()
    digests._imports.cache_clear()
    digests._data_below.cache_clear()
    importlib.invalidate_caches()
    return digests.class_digest("wing_for_test.method.Method")


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("method.py", True),
        ("parts/losses.py", True),
        ("parts/deep.py", True),
        ("__init__.py", True),
        ("prompts/plain.yaml", True),
        ("other.py", False),
    ],
)
def test_only_what_is_imported_counts(package: Path, file: str, stale: bool) -> None:
    before = digest()
    with (package / file).open("a") as source:
        source.write("\n# changed\n")
    assert (digest() != before) is stale


def test_a_module_beside_the_yaml_and_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lonely_for_test.py").write_text("import numpy\nimport helper_for_test\nclass A: ...\n")
    (tmp_path / "helper_for_test.py").write_text("x = 1\n")
    (tmp_path / "unrelated_for_test.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def current() -> str:
        digests.code_digest.cache_clear()
        digests._imports.cache_clear()
        return digests.class_digest("lonely_for_test.A")

    first = current()
    (tmp_path / "unrelated_for_test.py").write_text("x = 2\n")
    assert current() == first
    (tmp_path / "helper_for_test.py").write_text("x = 2\n")
    assert current() != first


def test_methods_of_ours_do_not_depend_on_one_another() -> None:
    """DPO's digest has its parts in it and no other method."""
    module = importlib.import_module("reference_methods.pairs.dpo")
    labels = {label for label, _ in digests._followed(Path(str(module.__file__)), "reference_methods.pairs.dpo")}
    assert "reference_methods/parts/losses.py" in labels
    assert not labels & {"reference_methods/online/ppo.py", "reference_methods/pairs/kto.py"}


def test_the_ground_has_what_changes_results() -> None:
    labels = {label for label, _ in digests._ground_files()}
    assert {"experiments/making.py", "base/rng.py", "policies/language_model.py"} <= labels
    assert not labels & {"cli.py", "experiments/run_status.py", "scheduling/on_ray.py"}


def test_a_listed_part_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the first file that is moved would let old results answer for changed code."""
    listed = digests._GROUND
    for gone in ("moved_away.py", "moved_room"):
        monkeypatch.setattr(digests, "_GROUND", (*listed, gone))
        with pytest.raises(RuntimeError, match=f"lists `{gone}`"):
            list(digests._ground_files())
    root = Path(digests.__file__).parents[2]
    assert all(digests._file(root, name) for name in digests._PLUMBING)


def test_the_code_of_an_annotator_is_that_of_its_module(package: Path) -> None:
    """Not of its package's first file alone: what the annotator's own file says decides what is cached."""
    from farm.asking.givers import description

    def current() -> object:
        digest()
        return description(importlib.import_module("wing_for_test.method").Method())["code"]

    before = current()
    with (package / "parts" / "losses.py").open("a") as source:
        source.write("\n# changed\n")
    assert current() != before


def test_a_class_of_a_notebooks_cell_counts_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """``__main__`` has no file there, and Python's own search stops at that."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # that of pytest, where 3.13 looks
    found = []
    for number, value in enumerate((1, 1, 2)):
        cell = f"<cell {number}>"
        source = f"class InACell:\n    x = {value}\n    def train(self, learning):\n        return self.x\n"
        names = {"__name__": "__main__"}
        monkeypatch.setitem(linecache.cache, cell, (len(source), None, source.splitlines(True), cell))
        exec(compile(source, cell, "exec"), names)
        monkeypatch.setattr(sys.modules["__main__"], "InACell", names["InACell"], raising=False)
        found.append(digests.class_digest("__main__.InACell"))
    assert found[0] == found[1] != found[2]
    bare: dict[str, object] = {"__name__": "__main__"}
    exec("class InACell: ...", bare)
    monkeypatch.setattr(sys.modules["__main__"], "InACell", bare["InACell"])
    with pytest.raises(UserError, match="its source is not to be found"):
        digests.class_digest("__main__.InACell")
