"""Data sets from a hub on loopback, with the hub's own client: plain files are read, and no script."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.roles.config import build
from farm.roles.protocols import World
from farm.tables import hub as farm_hub
from farm.worlds.alpaca_farm import HUB as ALPACA_FARM
from farm.worlds.alpaca_farm import AlpacaFarmWorld
from farm.worlds.text import TextWorld
from tests.hub_double import Hub

pytest.importorskip("huggingface_hub")
SCRIPT = b"raise SystemExit('a script of the repository was run')\n"


def rows(split: str, n: int) -> bytes:
    table = [{"instruction": f"{split} {i}", "input": "given" * (i % 2), "output": f"o{i}"} for i in range(n)]
    return json.dumps(table).encode()


def alpaca_farm() -> dict[str, bytes]:
    """The files of tatsu-lab/alpaca_farm that matter, with its loading script beside them."""
    splits = {"sft": 6, "preference": 5, "unlabeled": 4, "val": 3}
    return {
        "alpaca_farm.py": SCRIPT,
        "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# AlpacaFarm\n",
        "alpaca_human_preference.json": b"not looked at",
        "alpaca_farm_evaluation.json": rows("evaluation", 2),
        **{f"alpaca_instructions/{name}.json": rows(name, n) for name, n in splits.items()},
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as double:
        double.use(monkeypatch, tmp_path / "cache")
        yield double


def check_the_papers_splits(world: World) -> None:
    train = world.instructions("train")
    assert train["dataset"].tolist() == ["preference"] * 5 + ["unlabeled"] * 4
    assert train["instruction"][:2].tolist() == ["preference 0", "preference 1\n\ngiven"]
    assert world.instructions("test")["instruction"].tolist() == ["evaluation 0", "evaluation 1\n\ngiven"]
    assert len(world.instructions("validation")) == 3
    demonstrations = world.demonstrations()
    assert demonstrations is not None and demonstrations["output"].tolist() == [f"o{i}" for i in range(6)]


def test_alpaca_farm_comes_from_the_hub_though_a_script_lies_there(hub: Hub) -> None:
    hub.add("dataset", ALPACA_FARM, alpaca_farm())
    check_the_papers_splits(build(World, "alpaca_farm"))
    fetched = {path.rpartition("/")[2] for _, path in hub.seen if "/resolve/" in path}
    assert fetched == {"sft.json", "preference.json", "unlabeled.json", "val.json", "alpaca_farm_evaluation.json"}


@pytest.mark.parametrize(
    "address", ["huggingface.co", "ftp://hub.example", "https://", "https://[", "https://a b", "https://hub.example:x",
                "https://me:secret@hub.example", "http://hub.example"]
)  # fmt: skip
def test_an_address_of_the_hub_that_is_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for ask in (farm_hub.answers, lambda: farm_hub.read_data_set("owner/name")):
        with pytest.raises(UserError, match="`HF_ENDPOINT`") as said:
            ask()
        assert "secret" not in str(said.value)


@pytest.mark.parametrize("error", [http.client.BadStatusLine("x"), UnicodeError("label too long"), OSError()])
def test_a_hub_that_speaks_no_http_does_not_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    monkeypatch.setattr("urllib.request.urlopen", fails)
    assert not farm_hub.answers()


def test_alpaca_farm_from_a_copy_of_the_hubs_folder(tmp_path: Path) -> None:
    for name, data in alpaca_farm().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    check_the_papers_splits(AlpacaFarmWorld(data=str(tmp_path)))
    (tmp_path / "alpaca_farm_evaluation.json").rename(tmp_path / "eval.json")
    check_the_papers_splits(AlpacaFarmWorld(data=str(tmp_path)))
    (tmp_path / "eval.json").unlink()
    with pytest.raises(UserError, match=r"no file eval or alpaca_farm_evaluation in \.json.*`world.data`"):
        AlpacaFarmWorld(data=str(tmp_path)).instructions("test")


def test_what_the_hint_of_the_text_world_recommends_works(hub: Hub) -> None:
    hub.add("dataset", ALPACA_FARM, alpaca_farm())
    with pytest.raises(UserError) as caught:
        build(World, "text")
    recommended = str(caught.value).partition("world.hub=")[2].split()[0]
    world = TextWorld(hub=recommended)
    parts = [world.instructions(split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 18


def test_once_fetched_it_is_there_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", ALPACA_FARM, alpaca_farm())
    build(World, "alpaca_farm").instructions("train")
    asked = len(hub.seen)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_the_papers_splits(build(World, "alpaca_farm"))
    with pytest.raises(UserError, match=r"the data set o/absent is not in the hub's cache and the hub cannot be"):
        TextWorld(hub="o/absent").instructions("train")
    assert len(hub.seen) == asked


def parquet(tmp_path: Path, words: list[str]) -> bytes:
    pd.DataFrame({"instruction": words}).to_parquet(tmp_path / "x.parquet")
    return (tmp_path / "x.parquet").read_bytes()


CARD = b"""---
configs:
- config_name: default
  data_files: {split: train, path: "data/train-*"}
- config_name: hard
  data_files:
  - {split: train, path: ["hard/a.jsonl", "hard/b.csv"]}
---
# A data set
"""


def test_parts_are_those_of_the_card_or_folders_or_files(hub: Hub, tmp_path: Path) -> None:
    files = {
        "README.md": CARD,
        "o.py": SCRIPT,
        "data/train-0.parquet": parquet(tmp_path, ["a", "b"]),
        "data/train-1.parquet": parquet(tmp_path, ["c"]),
        "data/test-0.parquet": parquet(tmp_path, ["not this"]),
        "hard/a.jsonl": b'{"instruction": "d"}\n',
        "hard/b.csv": b"instruction\ne\n",
        "hard/c.csv": b"instruction\nnor this\n",
        "other/x.json": b'[{"instruction": "f"}]',
        "top.json": b'[{"instruction": "g"}]',
    }
    hub.add("dataset", "o/d", files)
    read = {c: farm_hub.read_data_set(f"o/d{c}")["instruction"].tolist() for c in ("", ":hard", ":other", ":top")}
    assert read == {"": ["a", "b", "c"], ":hard": ["d", "e"], ":other": ["f"], ":top": ["g"]}
    hub.add("dataset", "o/bare", {name: data for name, data in files.items() if name != "README.md"})
    assert farm_hub.read_data_set("o/bare")["instruction"].tolist() == ["not this", "a", "b", "c", "g"]
    with pytest.raises(UserError, match=r"o/d:nothing has no JSON, CSV or Parquet file under nothing"):
        farm_hub.read_data_set("o/d:nothing")


def test_what_the_hub_refuses_is_one_sentence_and_its_token_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", "o/private", {"a.json": b'[{"instruction": "g"}]'}, private=True)
    with pytest.raises(UserError) as caught:
        farm_hub.read_data_set("o/private")
    assert str(caught.value).startswith("the data set o/private could not be downloaded from the hub")
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", Hub.token)
    assert len(farm_hub.read_data_set("o/private")) == 1
    with pytest.raises(UserError, match="could not be downloaded from the hub"):
        farm_hub.read_data_set("not a name")


def test_another_process_asks_the_hub_that_hf_endpoint_names(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "o/d", {"a.json": b'[{"instruction": "from the double"}]', "d.py": SCRIPT})
    code = "from farm.tables.hub import read_data_set; print(read_data_set('o/d')['instruction'][0])"
    environment = {**os.environ, **hub.environment(tmp_path / "other")}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "from the double\n"


def test_the_double_takes_what_is_pushed(hub: Hub) -> None:
    """The next who writes to a hub finds it tested."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    client = HfApi(endpoint=hub.address, token=Hub.token)
    client.create_repo("o/pushed", repo_type="dataset", private=True)
    client.create_repo("o/pushed", repo_type="dataset", exist_ok=True)
    first = client.upload_file(
        path_or_fileobj=b'[{"instruction": "i"}]', path_in_repo="data/a.json", repo_id="o/pushed", repo_type="dataset"
    )
    client.delete_file("data/a.json", "o/pushed", repo_type="dataset")
    assert set(hub.files("dataset", "o/pushed")) == {".gitattributes"}
    assert client.file_exists("o/pushed", "data/a.json", repo_type="dataset", revision=first.oid)
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=hub.address, token=False).create_repo("o/other")
