"""Whole tasks of the reference: operations in a row, each reading what the one before wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pamola_core.utils.tasks.task_runner import TaskRunner

from benchmarks.pamola_core import data

_STEPS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("FullMaskingOperation", ["last_name"], {}),
    ("PartialMaskingOperation", ["phone"], {"unmasked_prefix": 3}),
    ("RemoveFieldsOperation", [], {"fields_to_remove": ["email"]}),
]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One way to run the same task."""

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)


# No encrypted one: from the second step on the reference's own reader would have to open what we
# seal, which it cannot. Encrypted operations are compared one by one, and opened with our reader.
PIPELINES = [
    Pipeline(name="csv"),
    Pipeline(name="json", given={"output_format": "json"}),
]


def start(pipeline: Pipeline, root: Path) -> tuple[Mapping[str, Any] | None, Path]:
    """Run the task as ``pamola-core run`` does; return what went wrong, if anything, and where."""
    (root / "configs").mkdir()
    (root / "configs" / "prj_config.yaml").write_text("project_name: benchmark\n")
    (root / "task").mkdir()
    source = root / "people.csv"
    data.people().to_csv(source, index=False)
    task = TaskRunner(
        task_id="benchmark",
        task_type="anonymization",
        description="",
        input_datasets={"main": str(source)},
        operation_configs=[_step(pipeline, number) for number in range(len(_STEPS))],
        task_dir=str(root / "task"),
    )
    succeeded = task.run()
    error = None if succeeded else {"message": "unknown", **(task.error_info or {})}
    return error, root / "task" / "processed" / "benchmark"


def _step(pipeline: Pipeline, number: int) -> dict[str, Any]:
    operation, fields, given = _STEPS[number]
    return {
        "operation": "anonymization",
        "class_name": operation,
        "parameters": {"visualization_backend": None, **pipeline.given, **given},
        "scope": {"type": "field", "target": fields},
        "dataset_name": "main",
        "task_operation_id": number,
        "task_operation_order_index": number,
    }
