"""AlpacaFarm's data splits (arXiv 2305.14387, section 4) with any causal language model.

Alpaca's instructions are divided by the paper: "sft" (10k, with demonstrations), "preference" (10k, whose responses are
compared), "unlabeled" (20k, for methods that sample), "val" (2k), and an evaluation set of 805 from five sources. Here
"train" is preference and then unlabeled, so that with ``sizes.pairs`` 10000 and ``sizes.prompts`` 20000 every
instruction is used for what the paper uses it for.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from farm.base.bounds import Count, PositiveShare, bounded
from farm.base.errors import UserError
from farm.hardware.device import Device
from farm.roles.protocols import SamplingEngine
from farm.tables import formats, hub
from farm.worlds.text import TextWorld

HUB = "tatsu-lab/alpaca_farm"
FILES = {
    "sft": ("sft",),
    "preference": ("preference",),
    "unlabeled": ("unlabeled",),
    "val": ("val",),
    "eval": ("eval", "alpaca_farm_evaluation"),
}
"""each split and the names that its file may have, in the folder or in ``alpaca_instructions`` below it"""
_TRAIN = ("preference", "unlabeled")


class AlpacaFarmWorld(TextWorld):
    """The paper's splits, from the hub or from a folder.

    Args:
        model: a hub id or a local folder; the paper has LLaMA 7B, before any tuning.
        data: a folder with sft.json, preference.json, unlabeled.json, val.json and eval.json (or .jsonl, .csv,
            .parquet; eval also as alpaca_farm_evaluation), each with ``instruction`` and perhaps ``input``, and sft
            with ``output``. A copy of the hub's data set is such a folder; None takes the hub's.
        dtype, compute_dtype, max_new_tokens, top_p, rows_at_once, engine, device: as in
            :class:`farm.worlds.text.TextWorld`.
    """

    @bounded
    def __init__(
        self,
        model: str = "huggyllama/llama-7b",
        data: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = "auto",
        max_new_tokens: Count = 300,
        top_p: PositiveShare = 1.0,
        rows_at_once: Count = 512,
        engine: SamplingEngine | None = None,
        device: Device | None = None,
    ) -> None:
        super().__init__(
            model=model,
            hub=HUB,
            dtype=dtype,
            compute_dtype=compute_dtype,
            max_new_tokens=max_new_tokens,
            top_p=top_p,
            rows_at_once=rows_at_once,
            engine=engine,
            device=device,
        )
        self.data = data

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        if self.data is None:
            folder = hub.data_files(HUB, ["alpaca_instructions/*.json", "alpaca_farm_evaluation.json"])
        else:
            folder = Path(self.data)
        return {name: _read(folder, name) for name in FILES}

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        names = {"train": _TRAIN, "validation": ("val",), "test": ("eval",)}[split]
        tables = [self._tables[name][["instruction"]].assign(dataset=name) for name in names]
        return pd.concat(tables, ignore_index=True).assign(split=split)[:limit]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:
        table = self._tables["sft"]
        formats.require(table, ["instruction", "output"], "the split sft")
        return table[["instruction", "output"]][:limit].reset_index(drop=True)


def _read(folder: Path, split: str) -> pd.DataFrame:
    for place in (folder, folder / "alpaca_instructions"):
        for name in FILES[split]:
            for ending in formats.SUFFIXES:
                if (path := place / (name + ending)).is_file():
                    return formats.read_instructions(path)
    known = " or ".join(FILES[split])
    raise UserError(
        f"{folder}: there is no file {known} in {', '.join(formats.SUFFIXES)}; `world.data` names the folder"
    )
