"""The run folder of an experiment that computes its tables: ``tables/*.parquet``, of each variant in a folder below."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from farm.base.errors import Fruitless
from farm.experiments import run_folder
from farm.experiments.experiment import Study
from farm.experiments.plan import Plan
from farm.experiments.setting import describe_study
from farm.experiments.stages.computed import Computed
from farm.scheduling.scheduler import Results


def finish(study: Study, plans: Sequence[Plan], results: Results, folder: Path) -> list[dict[str, Any]]:
    """Write the folder of the stages that are done; what failed, as a run tells it.

    Raises:
        Fruitless: where all failed.
    """
    failures, rows = [], []
    with run_folder.replaced(folder) as new:
        for variant, plan in zip(study.variants, plans, strict=True):
            stage = Computed(plan.setting)
            if (failed := results.failures.get(plan.node(stage).key)) is not None:
                failures.append(
                    {"variant": variant.name, "method": "", "stage": stage.label(), "reason": failed.reason}
                )
                continue
            place = new / "runs" / variant.name if study.plural else new
            (place / "tables").mkdir(parents=True)
            for table in sorted(plan.folder(stage).glob("*.parquet")):
                shutil.copyfile(table, place / "tables" / table.name)
            run_folder.write_config(place, plan.setting.description)
            rows.append({"variant": variant.name, **variant.labels})
        if not rows:
            raise Fruitless(f"nothing of {study.whole.name} was computed: {failures[0]['reason']}")
        if study.plural:
            run_folder.write_config(new, describe_study(study.whole, study.origin))
            run_folder.write_tables(new, {"variants": pd.DataFrame(rows)})
        if failures:
            run_folder.write_tables(new, {"failures": pd.DataFrame(failures)})
    return failures
