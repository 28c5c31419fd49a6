"""Compile one run into a Dask graph; no I/O happens here, so a graph is safe to throw away.

::

    partition 0 ─► serialize ─► encrypt ─► put ─┐
    partition 1 ─► serialize ─► encrypt ─► put ─┼─► gather (tree) ─► finalize ─► WriterResult
    ...                                         ┘

Columns whose type only the data can tell add a ``schema`` layer before serialize. Partitions that
an interrupted run has staged go straight from its record to gather. The one module that uses
Dask's private task classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask._expr import Expr
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    List,
    Task,
    TaskRef,
    convert_legacy_graph,
    cull,
)
from dask.base import tokenize
from dask.core import flatten, reverse_dict
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pamola_dwriter import finalize, layout, tasks
from pamola_dwriter.events import ANNOTATION, WriteAnnounced
from pamola_dwriter.layout import Stage
from pamola_dwriter.progress import LAST_STAGES, PARTITION_STAGES
from pamola_dwriter.records import Kept
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec

_CACHES = frozenset({"_dataset_info_cache", "_pq_length_stats"})
"""Parameters in which an expression keeps what it has looked up."""

Key = Any
Staged = dict[int, Key]
"""Key of the task that knows the parts of a partition, by partition."""


@dataclass(frozen=True, slots=True)
class Source:
    """The partitions to write: a graph, and the key of each partition in order.

    Attributes
    ----------
    identity : tuple of str, or None
        Tokens that are the same for the same input in another process; None for a frame in
        memory.
    """

    graph: Mapping[Any, Any]
    keys: tuple[Any, ...]
    identity: tuple[str, ...] | None

    @classmethod
    def from_dask(cls, frame: dd.DataFrame) -> Source:
        """Take the optimized graph of a Dask DataFrame."""
        optimized = frame.optimize()
        return cls(
            dict(optimized.__dask_graph__()),
            tuple(flatten(optimized.__dask_keys__())),
            (str(frame.npartitions), *map(_identify, frame.expr.walk())),
        )

    @classmethod
    def from_pandas(cls, frames: Sequence[pd.DataFrame], name: str) -> Source:
        """Take frames in memory, each as one partition."""
        keys = [(name, index) for index in range(len(frames))]
        nodes = {key: DataNode(key, frame) for key, frame in zip(keys, frames, strict=True)}
        return cls(nodes, tuple(keys), None)


def _identify(node: Any) -> str:
    """Return a token of one step of an expression; what it is applied to has tokens of its own.

    The names that Dask gives to Parquet input are no such tokens: they depend on a cache.
    """
    parameters = [*node._parameters, *[""] * (len(node.operands) - len(node._parameters))]
    own = [
        (parameter, operand)
        for parameter, operand in zip(parameters, node.operands, strict=True)
        if parameter not in _CACHES and not isinstance(operand, Expr)
    ]
    checksum = node.checksum if hasattr(type(node), "checksum") else None  # of Parquet files
    token: str = tokenize(type(node).__name__, checksum, own)
    return token


class _Layers:
    """Layers of a graph under construction, with their dependencies."""

    def __init__(self, source: Mapping[Any, Any], settings: Settings) -> None:
        self.settings = settings
        self._layers: dict[str, Any] = {"pamola-input": MaterializedLayer(source)}
        self._dependencies: dict[str, set[str]] = {"pamola-input": set()}

    def add(
        self,
        name: str,
        layer: dict[Any, Task],
        *,
        stores: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a layer, with annotations: one that stores something is retried by Dask.

        Annotations that are set while a dask-expr collection is built are lost.
        """
        retries = {"retries": self.settings.task_retries} if stores else {}
        annotations = {**retries, **(more or {})} or None
        self._dependencies[name] = set(self._layers)
        self._layers[name] = MaterializedLayer(layer, annotations=annotations)

    def graph(self) -> HighLevelGraph:
        return HighLevelGraph(self._layers, self._dependencies)


def compile_write(
    source: Source, spec: RunSpec, settings: Settings, kept: Kept
) -> tuple[HighLevelGraph, Key]:
    """Return the graph of a write, and the key of its WriterResult."""
    partitions = dict(enumerate(source.keys))
    spec = replace(spec, partitions=1 if spec.target.single_file else len(partitions))
    todo = {index: key for index, key in partitions.items() if index not in kept.partitions}
    needed = _cull(source.graph, todo.values()) if kept.partitions else source.graph
    layers = _Layers(needed, settings)
    if spec.target.single_file and len(todo) > 1:
        key = f"pamola-combine-{spec.write_id}"
        inputs = List(*(TaskRef(partition) for partition in todo.values()))
        layers.add(key, {key: Task(key, tasks.combine, inputs)})
        todo = {0: key}
    resolved = kept.resolved
    if spec.unresolved and resolved is None:
        resolved = _add_schema(layers, todo, spec)
    staged = _add_parts(layers, todo, spec, resolved) | _add_kept(layers, kept, spec)
    gathered = _add_tree(layers, list(staged.values()), tasks.gather, "gather", spec)
    final = layout.task_key("commit", spec.write_id)
    commit = Task(final, finalize.finalize, TaskRef(gathered), resolved, spec)
    announced = {ANNOTATION: WriteAnnounced.of(spec).to_message()}
    layers.add(final, {final: commit}, stores=True, more=announced)
    return layers.graph(), final


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


def _cull(graph: Mapping[Key, Any], keys: Collection[Key]) -> dict[Key, Any]:
    """Leave out what none of `keys` needs."""
    return cull(convert_legacy_graph(graph), set(keys)) if keys else {}


def _add_parts(layers: _Layers, todo: Mapping[int, Key], spec: RunSpec, resolved: Any) -> Staged:
    if layers.settings.fuse_stages:
        return _add_stage(layers, "part", tasks.write_part, todo, spec, resolved)
    keys = _add_stage(layers, "serialize", tasks.serialize, todo, spec, resolved)
    if spec.sealing is not None:
        keys = _add_stage(layers, "encrypt", tasks.encrypt, keys, spec)
    return _add_stage(layers, "put", tasks.put, keys, spec, resolved)


def _add_kept(layers: _Layers, kept: Kept, spec: RunSpec) -> Staged:
    name = layout.task_key("keep", spec.write_id)
    staged = {index: (name, index) for index in sorted(kept.partitions)}
    layer = {
        key: Task(key, tasks.keep, kept.partitions[index], index, spec)
        for index, key in staged.items()
    }
    if layer:
        layers.add(name, layer)
    return staged


def _add_stage(
    layers: _Layers,
    stage: Stage,
    function: Callable[..., Any],
    inputs: Mapping[int, Key],
    spec: RunSpec,
    *more: Any,
) -> Staged:
    name = layout.task_key(stage, spec.write_id)
    layer = {
        (name, index): Task((name, index), function, TaskRef(key), index, spec, *more)
        for index, key in inputs.items()
    }
    layers.add(name, layer, stores=stage in LAST_STAGES)
    return {index: (name, index) for index in inputs}


def _add_schema(layers: _Layers, todo: Mapping[int, Key], spec: RunSpec) -> TaskRef:
    inferred = _add_stage(layers, "infer", tasks.infer, todo, spec)
    return TaskRef(_add_tree(layers, list(inferred.values()), tasks.unify, "schema", spec))


def _add_tree(
    layers: _Layers,
    inputs: Sequence[Key],
    function: Callable[..., Any],
    stage: Stage,
    spec: RunSpec,
) -> Key:
    """Reduce `inputs` to one key, so many at a time that no task has too many inputs."""
    name = layout.task_key(stage, spec.write_id)
    layer: dict[Key, Task] = {}
    width, level = layers.settings.gather_width, list(inputs)
    while len(level) > 1 or not layer:
        groups = [level[start : start + width] for start in range(0, len(level), width)]
        first = len(layer)
        for number, group in enumerate(groups, start=first):
            references = List(*(TaskRef(key) for key in group))
            layer[name, number] = Task((name, number), function, references)
        level = [(name, number) for number in range(first, first + len(groups))]
    layers.add(name, layer)
    return level[0]
