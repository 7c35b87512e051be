"""Where an experiment's responses and feedback come from, with every default filled in; what the user gives of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError, nearest
from farm.experiments import run_tables
from farm.experiments.experiment import Experiment
from farm.experiments.feedback import Asked, From, Responses, asked_or_given
from farm.feedback.designs import BY_SCORE
from farm.feedback.kind import kinds
from farm.roles.config import Spec
from farm.storage.store import address
from farm.tables import feedback_sets, formats, turns
from farm.tables.further import Further, further, of_prompts, plain
from farm.tables.records import USAGE_COLUMNS

TOGETHER = {"singles": 1, "triples": 3}
"""how many responses to an instruction a design puts together at least; two where nothing is said"""
PAIRED = "adjacent"
"""the design of pairs where none is said: the first draw against the second"""


class Sources:
    """Responses and feedback of one experiment."""

    def __init__(self, experiment: Experiment, origin: str) -> None:
        self.experiment, self.origin = experiment, origin

    # --- responses ------------------------------------------------------------------------------------------------

    @cached_property
    def responses(self) -> Responses:
        said, e, fields = self.experiment.responses, self.experiment, Responses.model_fields
        vain = [n for n in ("per_prompt", "temperature", "writers") if getattr(said, n) != fields[n].get_default()]
        if said.source is not None and vain:
            given = f"responses are given from {said.source}, and none are written"
            raise UserError(f"{self.origin}: {given}: leave `responses.{vain[0]}` out")
        defaults = {"prompts": said.prompts or e.sizes.pairs, "temperature": said.temperature or e.temperature}
        return said.model_copy(update=defaults)

    @property
    def number_of_responses(self) -> int:
        said = self.responses
        if said.source is not None:
            return len(self.given_responses)
        return (said.prompts or 0) * said.per_prompt * len(said.writers)

    @cached_property
    def given_responses(self) -> pd.DataFrame:
        """The user's model outputs: ``instruction, output, generator``, and of further columns those that can be kept
        and have no name under which a stage writes."""
        said = self.responses
        assert said.source is not None
        table = feedback_sets.as_kind(feedback_sets.read(said.source, said.map), "outputs")
        if self.experiment.responses.prompts is not None:
            table = table[pd.factorize(turns.row_ids(table))[0] < (said.prompts or 0)]
        beside = [c for c in further(table[plain(table)]) if run_tables.can_hold_of_outputs(c, table[c])]
        return table[[*turns.kept(table), "output", "generator", *beside]].reset_index(drop=True)

    @cached_property
    def given_of_prompts(self) -> Further | None:
        """Those further columns of given responses that have one value for a prompt, and so are of the instruction;
        others are of a response. None where none are given."""
        if self.responses.source is None:
            return None
        table = self.given_responses
        return Further.of(table[[*turns.kept(table), *of_prompts(table)]], str(self.responses.source))

    @property
    def labelled_prompts(self) -> int:
        """How many of the first training instructions feedback is on; unlabelled ones come from behind them."""
        if self.responses.source is not None or all(isinstance(said, From) for said in self.feedback.values()):
            return 0
        return self.responses.prompts or 0

    # --- feedback -------------------------------------------------------------------------------------------------

    @cached_property
    def feedback(self) -> dict[str, Asked | From]:
        """Kind -> who gives it; pairs are given by ``annotator`` where nothing is said of them."""
        said = {"pairs": None, **self.experiment.feedback}
        found = {kind: asked_or_given(entry, f"{self.origin}: feedback.{kind}") for kind, entry in said.items()}
        for kind, entry in found.items():
            if isinstance(entry, Asked):
                self._check(kind, entry, found)
        return found

    def _check(self, kind: str, entry: Asked, among: Mapping[str, Asked | From]) -> None:
        """Refuse a design that a kind has not, and scores that there are not or that no design takes."""
        where, designs = f"{self.origin}: feedback.{kind}", kinds()[kind].designs
        if entry.design is not None and entry.design not in designs:
            raise UserError(f"{where}: there is no design `{entry.design}`; {nearest(entry.design, designs)}")
        if (entry.by is not None) != (entry.design in BY_SCORE):
            raise UserError(f"{where}: a design by score ({', '.join(BY_SCORE)}) and `by`, whose scores it takes, go"
                            " together: name both or neither")  # fmt: skip
        models = [*(["reward_model"] if self.experiment.reward_model is not None else []), *self.experiment.models]
        known = [*(name for name in among if "score" in kinds()[name].columns), *models]
        if entry.by is not None and entry.by not in known:
            hint = nearest(entry.by, known) if known else "ask for ratings, or fit a model"
            raise UserError(f"{where}: `by`: there are no scores of `{entry.by}`; {hint}")

    def lack(self, kind: str) -> str | None:
        """What responses lack for a kind that somebody is asked for, as a clause; None where there are enough."""
        entry, said = self.feedback[kind], self.responses
        if isinstance(entry, From):
            return None
        design, each = entry.design or kinds()[kind].designs[0], said.per_prompt * len(said.writers)
        if said.source is not None:
            each = int(np.unique(turns.row_ids(self.given_responses), return_counts=True)[1].max())
        needed = TOGETHER.get(design, 2)
        if each >= needed:
            return None
        how = f"give more in {said.source}" if said.source else f"set `responses.per_prompt` to {needed} or more"
        return f"{needed} responses to an instruction are put together, and there are at most {each}: {how}"

    def giver(self, kind: str) -> Spec:
        """Who is asked for a kind of feedback."""
        entry, default = self.feedback[kind], self.experiment.annotator
        said = entry.annotator if isinstance(entry, Asked) else None
        if isinstance(said, dict) and "use" not in said and "class" not in said:  # changed arguments of the default
            return {**(default if isinstance(default, dict) else {"use": default}), **said}
        return default if said is None else said

    def rows(self, kind: str) -> int:
        """How many rows of a kind there are, or will be asked about at most."""
        entry, said = self.feedback[kind], self.responses
        if isinstance(entry, From):
            return len(self.given(kind))
        design = entry.design or (PAIRED if kind == "pairs" else kinds()[kind].designs[0])
        prompts, each = said.prompts or 0, said.per_prompt * len(said.writers)
        if said.source is not None:
            prompts = len(np.unique(turns.row_ids(self.given_responses)))
            each = -(-self.number_of_responses // max(prompts, 1))
        a_prompt = {"singles": each, "groups": 1, "all": each * (each - 1) // 2, "adjacent": each // 2}
        a_prompt |= {"swiss": each // 2, "ranked": each - 1, "best-worst": 1}
        return prompts * a_prompt.get(design, entry.n)

    @cached_property
    def _given(self) -> dict[str, pd.DataFrame]:
        return {kind: self._read(kind, entry) for kind, entry in self.feedback.items() if isinstance(entry, From)}

    def given(self, kind: str) -> pd.DataFrame:
        """The user's own feedback of a kind, with a status and without a cost.

        Raises:
            UserError: naming file, row and field, for what is no feedback of this kind.
        """
        return self._given[kind]

    def digest(self, kind: str) -> str:
        """Of what the user gives of a kind, or of ``responses``: the name of a file would not tell that it changed."""
        table = self.given_responses if kind == "responses" else self.given(kind)
        return address(table.to_json(orient="split")).hex()

    def _read(self, kind: str, entry: From) -> pd.DataFrame:
        found = feedback_sets.read(entry.source, entry.map, kind)
        table = feedback_sets.as_kind(found, kind)
        texts = [c for c in ("anchor", "output_1", "output_2", "output") if c in table.columns]
        paired = ["output_1", "output_2"] if kind == "pairs" else []
        formats.require(table, ["instruction", *(paired or texts)], found.origin)
        answer = kinds()[kind].answer
        status = table["status"] if "status" in table.columns else np.where(table[answer].isna(), "unparseable", "ok")
        table = table.assign(
            status=np.where(table[answer].isna() & (np.asarray(status) == "ok"), "unparseable", status)
        )
        if not (table["status"] == "ok").any():
            raise UserError(f"{found.origin}: no row has an answer in `{answer}`")
        # Objects and columns of several types, which many data sets have beside, cannot be kept in the stage's table,
        # nor what has the name of a column of runs and says something else there.
        kept = {c for c in plain(table) if run_tables.can_hold(c, table[c])}
        kept |= {"turns", "outputs", "generators", "scores", *kinds()[kind].columns}
        table = table[[c for c in table.columns if c in kept]]
        missing = {c: 0 for c in ("seed", "replicate") if c not in table.columns}
        nothing: dict[str, Any] = dict.fromkeys(USAGE_COLUMNS, 0.0)  # whatever it cost, this run did not pay for it
        return table.assign(**missing, **nothing).reset_index(drop=True)
