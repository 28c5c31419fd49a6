"""Compile one run into a Dask graph; no I/O happens here, so a graph is safe to throw away.

::

    partition 0 ─► serialize ─► encrypt ─► put ─┐
    partition 1 ─► serialize ─► encrypt ─► put ─┼─► gather (tree) ─► finalize ─► WriterResult
    ...                                         ┘

Columns whose type only the data can tell add a ``schema`` layer before serialize. The one
module that uses Dask's private task classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pamola_dwriter import finalize, layout, tasks
from pamola_dwriter.layout import Stage
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec

Key = Any


@dataclass(frozen=True, slots=True)
class Source:
    """The partitions to write: a graph, and the key of each partition in order."""

    graph: Mapping[Any, Any]
    keys: tuple[Any, ...]

    @classmethod
    def from_dask(cls, frame: dd.DataFrame) -> Source:
        """Take the optimized graph of a Dask DataFrame."""
        optimized = frame.optimize()
        return cls(dict(optimized.__dask_graph__()), tuple(flatten(optimized.__dask_keys__())))

    @classmethod
    def from_pandas(cls, frames: Sequence[pd.DataFrame], name: str) -> Source:
        """Take frames in memory, each as one partition."""
        keys = [(name, index) for index in range(len(frames))]
        nodes = {key: DataNode(key, frame) for key, frame in zip(keys, frames, strict=True)}
        return cls(nodes, tuple(keys))


class _Layers:
    """Layers of a graph under construction, with their dependencies."""

    def __init__(self, source: Mapping[Any, Any]) -> None:
        self._layers: dict[str, Any] = {"pamola-input": MaterializedLayer(dict(source))}
        self._dependencies: dict[str, set[str]] = {"pamola-input": set()}

    def add(self, name: str, layer: dict[Any, Task]) -> None:
        self._dependencies[name] = set(self._layers)
        self._layers[name] = MaterializedLayer(layer)

    def graph(self) -> HighLevelGraph:
        return HighLevelGraph(self._layers, self._dependencies)


def compile_write(source: Source, spec: RunSpec, settings: Settings) -> tuple[HighLevelGraph, Key]:
    """Return the graph of a write, and the key of its WriterResult."""
    layers = _Layers(source.graph)
    partitions = list(source.keys)
    if spec.target.single_file and len(partitions) > 1:
        key = f"pamola-combine-{spec.write_id}"
        inputs = List(*(TaskRef(partition) for partition in partitions))
        layers.add(key, {key: Task(key, tasks.combine, inputs)})
        partitions = [key]
    spec = replace(spec, partitions=len(partitions))
    resolved = _add_schema(layers, partitions, spec, settings) if spec.unresolved else None
    staged = _add_parts(layers, partitions, spec, resolved, settings)
    gathered = _add_tree(layers, staged, tasks.gather, "gather", spec, settings)
    final = layout.task_key("commit", spec.write_id)
    layers.add(final, {final: Task(final, finalize.finalize, TaskRef(gathered), resolved, spec)})
    return layers.graph(), final


def _add_parts(
    layers: _Layers,
    partitions: Sequence[Key],
    spec: RunSpec,
    resolved: TaskRef | None,
    settings: Settings,
) -> list[Key]:
    if settings.fuse_stages:
        return _add_stage(layers, "part", tasks.write_part, partitions, spec, resolved)
    keys = _add_stage(layers, "serialize", tasks.serialize, partitions, spec, resolved)
    if spec.sealing is not None:
        keys = _add_stage(layers, "encrypt", tasks.encrypt, keys, spec)
    return _add_stage(layers, "put", tasks.put, keys, spec)


def _add_stage(
    layers: _Layers,
    stage: Stage,
    function: Callable[..., Any],
    inputs: Sequence[Key],
    spec: RunSpec,
    *more: Any,
) -> list[Key]:
    name = layout.task_key(stage, spec.write_id)
    layer = {
        (name, index): Task((name, index), function, TaskRef(key), index, spec, *more)
        for index, key in enumerate(inputs)
    }
    layers.add(name, layer)
    return list(layer)


def _add_schema(
    layers: _Layers, partitions: Sequence[Key], spec: RunSpec, settings: Settings
) -> TaskRef:
    inferred = _add_stage(layers, "infer", tasks.infer, partitions, spec)
    return TaskRef(_add_tree(layers, inferred, tasks.unify, "schema", spec, settings))


def _add_tree(
    layers: _Layers,
    inputs: Sequence[Key],
    function: Callable[..., Any],
    stage: Stage,
    spec: RunSpec,
    settings: Settings,
) -> Key:
    """Reduce `inputs` to one key, so many at a time that no task has too many inputs."""
    name = layout.task_key(stage, spec.write_id)
    layer: dict[Key, Task] = {}
    width, level = settings.gather_width, list(inputs)
    while len(level) > 1 or not layer:
        groups = [level[start : start + width] for start in range(0, len(level), width)]
        first = len(layer)
        for number, group in enumerate(groups, start=first):
            references = List(*(TaskRef(key) for key in group))
            layer[name, number] = Task((name, number), function, references)
        level = [(name, number) for number in range(first, first + len(groups))]
    layers.add(name, layer)
    return level[0]
