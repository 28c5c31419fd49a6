"""Running one operation with one writer, and all that is to be seen of it afterwards."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from pamola_core.utils.ops.op_data_source import DataSource
from pamola_core.utils.progress import HierarchicalProgressTracker

from benchmarks.pamola_core import data
from benchmarks.pamola_core.calls import Calls
from benchmarks.pamola_core.catalog import KEY, Case
from benchmarks.pamola_core.content import contents, timeless
from benchmarks.pamola_core.pipelines import Pipeline, start
from benchmarks.pamola_core.substitute import substitute


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way in which every operation is run."""

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    as_task: bool = False
    runs: int = 1
    reference_executes: bool = False


_PLAIN = {"generate_visualization": False}  # the operations draw slowly, and without the writer

VARIANTS = [
    Variant(name="csv"),
    Variant(name="json", given={"output_format": "json", **_PLAIN}),
    # The reference's run() hands to_parquet keywords it does not know; its execute() does not.
    Variant(name="parquet", given={"output_format": "parquet", **_PLAIN}, reference_executes=True),
    Variant(
        name="encrypted",
        given={
            "use_encryption": True,
            "encryption_key": KEY,
            "encryption_mode": "simple",
            **_PLAIN,
        },
        key=KEY,
    ),
    # BaseTask gives run() the whole configuration, and operations forward it to the writer.
    Variant(name="as a task", given=_PLAIN, as_task=True),
    Variant(name="cached", given={"use_cache": True, **_PLAIN}, runs=2),
]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname.lower()}: {record.getMessage()}")


class _Reporter:
    """Takes what operations report; what is registered is compared from their result."""

    def add_operation(self, *_: Any, **__: Any) -> None:
        pass

    def add_artifact(self, *_: Any, **__: Any) -> None:
        pass

    def add_metric(self, *_: Any, **__: Any) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run left: `seen` is compared, `log` explains."""

    seen: dict[str, Any]
    log: list[str]


def run_case(
    case: Case, variant: Variant, writer: type[Any], root: Path, *, execute: bool = False
) -> Outcome:
    """Run an operation in the fresh folder `root` with `writer` in the reference's place."""
    collector = _Collector()
    logger = logging.getLogger(__name__)
    logger.handlers, logger.propagate = [collector], False
    results: list[dict[str, Any]] = []
    trackers: list[HierarchicalProgressTracker] = []
    with _quiet(root), substitute(writer):
        for _ in range(variant.runs):
            _seed()
            operation = case.operation(
                **{"visualization_backend": "matplotlib", **case.given, **variant.given}
            )
            operation.logger = logger
            tracker = HierarchicalProgressTracker(total=3, description=case.name)
            trackers.append(tracker)
            result = _start(operation, case, variant, root, tracker, execute)
            results.append(_result(result, root))
    seen = {
        "results": results,
        "open subtasks": sum(
            not child.pbar.disable for tracker in trackers for child in tracker.children
        ),
        "files": contents(root, variant.key),
    }
    return Outcome(seen=seen, log=collector.lines)


def run_calls(calls: Calls, writer: type[Any], root: Path) -> Outcome:
    """Run calls of the writer's own methods."""
    with _quiet(root):
        _seed()
        returned = calls.call(writer, root)
    files = contents(root, calls.key) if calls.files else {}
    return Outcome(seen={"returned": returned, "files": files}, log=[])


def run_pipeline(pipeline: Pipeline, writer: type[Any], root: Path) -> Outcome:
    """Run a whole task; its log, checkpoints and report are the runner's own."""
    with _quiet(root), substitute(writer):
        _seed()
        error, folder = start(pipeline, root)
    files = {
        name: content
        for name, content in contents(folder, None).items()
        if not name.startswith(("logs/", "manifest.json"))
    }
    log = [] if error is None else [str(error["message"])]
    return Outcome(seen={"succeeded": error is None, "files": files}, log=log)


def _start(
    operation: Any,
    case: Case,
    variant: Variant,
    root: Path,
    tracker: HierarchicalProgressTracker,
    execute: bool,
) -> Any:
    frames = {"main": data.people(), "shifted": data.shifted(), "cards": data.cards()}
    source = DataSource(dataframes=frames)
    given = dict(case.run)
    if variant.as_task:
        given = {**_configuration(operation), **given}
    where = {"data_source": source, "task_dir": root, "reporter": _Reporter()}
    begin = operation.execute if execute else operation.run
    return begin(**where, progress_tracker=tracker, **given)


def _configuration(operation: Any) -> dict[str, Any]:
    return {**operation.config.to_dict(), "encryption_context": None, "encryption_mode": "none"}


def _result(result: Any, root: Path) -> dict[str, Any]:
    artifacts = {
        timeless(artifact.path.relative_to(root).as_posix()): {
            "type": artifact.artifact_type,
            "category": artifact.category,
            "is a file": artifact.path.is_file(),
            "size is right": artifact.size == artifact.path.stat().st_size,
        }
        for artifact in result.artifacts
    }
    return {
        "status": result.status.name,
        "error": timeless(str(result.error_message).replace(str(root), "TASK")),
        "artifacts": artifacts,
        "metrics": {timeless(str(name)): value for name, value in result.metrics.items()},
    }


def _seed() -> None:
    random.seed(1)
    np.random.seed(1)


@contextlib.contextmanager
def _quiet(root: Path) -> Any:
    """Work in the task folder, without the bars and messages of the operations."""
    before = Path.cwd()
    logging.disable(logging.NOTSET)
    sink = io.StringIO()
    os.chdir(root)
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield
    finally:
        os.chdir(before)
        pyplot.close("all")
