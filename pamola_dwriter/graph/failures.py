"""Tell which partitions a task that failed leaves unwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dask._task_spec import Alias, DataNode, Dict, Task, TaskRef, convert_legacy_graph
from dask.core import reverse_dict
from dask.highlevelgraph import HighLevelGraph

from pamola_dwriter import layout
from pamola_dwriter.graph.source import Key
from pamola_dwriter.progress import PARTITION_STAGES


def name_failures(
    graph: HighLevelGraph, failed: Callable[[Key, tuple[int, ...], Exception], None]
) -> dict[Key, Any]:
    """Return the tasks of a write, which first tell `failed` of the partitions that they fail.

    Dask's threaded scheduler passes on what a task raised, and not which one it was.
    """
    tasks_by_key = convert_legacy_graph(graph.to_dict())
    dependents = reverse_dict({key: node.dependencies for key, node in tasks_by_key.items()})

    def run(node: Any, values: dict[Key, Any]) -> Any:
        try:
            return node(values)
        except Exception as error:
            failed(node.key, _partitions_behind(node.key, dependents), error)
            raise

    return {
        key: node
        if isinstance(node, DataNode | Alias)
        else Task(key, partial(run, node), Dict({dep: TaskRef(dep) for dep in node.dependencies}))
        for key, node in tasks_by_key.items()
    }


def _partitions_behind(key: Key, dependents: Mapping[Key, set[Key]]) -> tuple[int, ...]:
    """Return the partitions that cannot be written without the result of `key`."""
    found: set[int] = set()
    seen, todo = {key}, [key]
    while todo:
        parsed = layout.parse_task_key(here := todo.pop())
        if parsed is not None:
            stage, _, index = parsed
            if stage in PARTITION_STAGES and index is not None:
                found.add(index)
        else:
            todo += dependents[here] - seen
            seen |= dependents[here]
    return tuple(sorted(found))
