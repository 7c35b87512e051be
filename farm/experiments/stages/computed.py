"""Tables that a class makes itself, in the place of methods (`compute` of an experiment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from farm.base import progress
from farm.base.errors import UserError
from farm.experiments import run_tables
from farm.experiments.setting import Setting
from farm.experiments.stages.stage import Facts, Size, StageContext
from farm.tables import formats


@dataclass(frozen=True)
class Computed:
    """``<name>.parquet``, one for each table."""

    setting: Setting
    kind: ClassVar[str] = "computed"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "computed"

    def reads(self) -> tuple[()]:
        return ()

    def describe(self) -> dict[str, Any]:
        described = self.setting.description
        return {"compute": described["compute"], "world": described["world"], "seed": self.setting.seed}

    def size(self) -> Size:
        return Size(like=self.setting.description["compute"])

    def make(self, at: StageContext) -> Facts | None:
        with progress.task("computing"):
            made = self.setting.computation().tables(self.setting.seed)
        for name, table in made.items():
            if not name.isidentifier():
                raise UserError(f"{self.setting.origin}: compute: {name[:40]!r} cannot be the name of a table")
            if wrong := next((c for c in table.columns if not run_tables.can_hold(c, table[c])), None):
                raise UserError(
                    f"{self.setting.origin}: compute: `{wrong[:40]}` of the table `{name[:40]}` has values that "
                    "a run's tables cannot have in a column of this name; give it another name"
                )
            formats.write_table(table, at.place.folder / f"{name}.parquet")
        return {"tables": len(made)}
