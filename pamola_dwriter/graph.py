"""Compile one run into a Dask graph; no I/O happens here, so a graph is safe to throw away.

::

    partition 0 ─► serialize ─► encrypt ─► put ─┐
    partition 1 ─► serialize ─► encrypt ─► put ─┼─► gather (tree) ─► finalize ─► WriterResult
    ...                                         ┘

A partition is computed by the task that serializes it. Columns whose type only the data can tell
add a ``schema`` layer between the two. Where there are many partitions each is one task, from its
input to its parts on the store. What an interrupted run has staged goes straight from its record to
gather. A layer becomes tasks on the scheduler. The one module with Dask's private task classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
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
from dask.core import reverse_dict
from dask.highlevelgraph import HighLevelGraph, Layer

from pamola_dwriter import finalize, layout, tasks
from pamola_dwriter.events import ANNOTATION, WriteAnnounced
from pamola_dwriter.layout import Stage
from pamola_dwriter.progress import LAST_STAGES, PARTITION_STAGES
from pamola_dwriter.records import Kept
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec

_CACHES = frozenset({"_dataset_info_cache", "_pq_length_stats"})
"""Parameters in which an expression keeps what it has looked up."""

_INPUT = "pamola-input"

Key = Any
Graph = dict[Key, Any]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a layer: its name, with each of some numbers of partitions."""

    name: str
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Key]:
        return ((self.name, number) for number in self.numbers)

    def without(self, numbers: Collection[int]) -> Keys:
        """Return those that are left."""
        if not numbers:
            return self
        return replace(self, numbers=[n for n in self.numbers if n not in numbers])


@dataclass(frozen=True, slots=True)
class Source:
    """The partitions to write.

    Attributes
    ----------
    make : callable
        Returns a graph; can be pickled, and is small where the frame is not in memory.
    keys : Keys
        Of each partition.
    identity : tuple of str, or None
        Tokens that are the same for the same input in another process; None for a frame in
        memory.
    """

    make: Callable[[], Graph]
    keys: Keys
    identity: tuple[str, ...] | None

    @classmethod
    def from_dask(cls, frame: dd.DataFrame) -> Source:
        """Take the optimized expression of a Dask DataFrame."""
        expression = frame.optimize().expr.lower_completely()
        return cls(
            expression.__dask_graph__,
            Keys(expression._name, range(expression.npartitions)),
            (str(frame.npartitions), *map(_identify, frame.expr.walk())),
        )

    @classmethod
    def from_pandas(cls, frames: Sequence[pd.DataFrame], name: str) -> Source:
        """Take frames in memory, each as one partition."""
        keys = Keys(name, range(len(frames)))
        return cls(partial(_hold, keys, frames), keys, None)


def _hold(keys: Keys, frames: Sequence[pd.DataFrame]) -> Graph:
    return {key: DataNode(key, frame) for key, frame in zip(keys, frames, strict=True)}


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


def _without(name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {other: value for other, value in state.items() if other != name}


class TaskLayer(Layer):
    """Tasks that are made where they are looked at, which is on the scheduler.

    What travels there is how to make them, so that the size of a graph does not depend on the
    number of its partitions.
    """

    def __init__(self, make: Callable[[], Graph], annotations: Mapping[str, Any] | None) -> None:
        super().__init__(annotations=annotations)
        self._make = make

    @cached_property
    def _tasks(self) -> Graph:
        return self._make()

    def __getstate__(self) -> dict[str, Any]:
        return _without("_tasks", vars(self))

    def __getitem__(self, key: Key) -> Any:
        return self._tasks[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def is_materialized(self) -> bool:
        return "_tasks" in vars(self)

    def get_output_keys(self) -> Set[Key]:
        return self.keys()


class _Layers:
    """Layers of the graph of one write under construction, with their dependencies."""

    def __init__(self, spec: RunSpec, settings: Settings) -> None:
        self.spec = spec
        self.settings = settings
        self._layers: dict[str, TaskLayer] = {}
        self._dependencies: dict[str, set[str]] = {}

    def add(
        self,
        name: str,
        make: Callable[[], Graph],
        *,
        stores: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a layer, with annotations: one that stores something is retried by Dask.

        Annotations that are set while a dask-expr collection is built are lost.
        """
        retries = {"retries": self.settings.task_retries} if stores else {}
        self._dependencies[name] = set(self._layers)
        self._layers[name] = TaskLayer(make, {**retries, **(more or {})} or None)

    def graph(self) -> HighLevelGraph:
        return HighLevelGraph(self._layers, self._dependencies)


def compile_write(
    source: Source, spec: RunSpec, settings: Settings, kept: Kept
) -> tuple[HighLevelGraph, Key]:
    """Return the graph of a write, and the key of its WriterResult."""
    spec = replace(spec, partitions=1 if spec.target.single_file else len(source.keys))
    layers = _Layers(spec, settings)
    todo = source.keys.without(kept.partitions)
    make = partial(_cull, source.make, todo) if kept.partitions else source.make
    resolved: Any = kept.resolved
    is_open = bool(spec.unresolved) and resolved is None
    is_combined = spec.target.single_file and len(todo) > 1
    fuses = settings.fuses(len(source.keys))
    stage: Stage = "part" if fuses else "serialize"
    function: Callable[..., Any] = tasks.write_part if fuses else tasks.serialize
    if is_open or is_combined:
        layers.add(_INPUT, make)
        if is_combined:
            todo = _add_combined(layers, todo)
        if is_open:
            resolved = _add_schema(layers, todo)
        parts = _add_stage(layers, stage, function, todo, resolved)
    else:
        parts = _add_with_input(layers, make, stage, function, todo, resolved)
    if not fuses:
        parts = _add_storing(layers, parts, resolved)
    staged = [parts, _add_kept(layers, kept)]
    gathered = _add_tree(layers, staged, tasks.gather, "gather")
    final = layout.task_key("commit", spec.write_id)
    commit = Task(final, finalize.finalize, TaskRef(gathered), resolved, spec)
    announced = {ANNOTATION: WriteAnnounced.of(spec).to_message()}
    layers.add(final, partial(dict, {final: commit}), stores=True, more=announced)
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


def _cull(make: Callable[[], Graph], keys: Keys) -> Graph:
    """Leave out what none of `keys` needs."""
    return cull(convert_legacy_graph(make()), set(keys)) if len(keys) else {}


def _add_combined(layers: _Layers, todo: Keys) -> Keys:
    one = Keys(f"pamola-combine-{layers.spec.write_id}", range(1))
    layers.add(one.name, partial(_reduce, one.name, [todo], tasks.combine, len(todo)))
    return one


def _add_storing(layers: _Layers, pieces: Keys, resolved: Any) -> Keys:
    if layers.spec.sealing is not None:
        pieces = _add_stage(layers, "encrypt", tasks.encrypt, pieces)
    return _add_stage(layers, "put", tasks.put, pieces, resolved)


def _add_with_input(
    layers: _Layers,
    make: Callable[[], Graph],
    stage: Stage,
    function: Callable[..., Any],
    todo: Keys,
    resolved: pa.Schema | None,
) -> Keys:
    """Add the input and the stage that takes it in, as one task where nothing else needs it.

    Then its memory is free for the next partition; see ``benchmarks/README.md``.
    """
    made = replace(todo, name=layout.task_key(stage, layers.spec.write_id))
    fusion = _Fusion(make, partial(_apply, function, todo, made, layers.spec, resolved))
    layers.add(_INPUT, partial(fusion.layer, 0))
    layers.add(made.name, partial(fusion.layer, 1), stores=stage in LAST_STAGES)
    return made


class _Fusion:
    """Two layers that are made together: the tasks of the second take in those of the first."""

    def __init__(self, make_input: Callable[[], Graph], make_parts: Callable[[], Graph]) -> None:
        self._make_input = make_input
        self._make_parts = make_parts

    def __getstate__(self) -> dict[str, Any]:
        return _without("_layers", vars(self))

    @cached_property
    def _layers(self) -> tuple[Graph, Graph]:
        given, parts = convert_legacy_graph(self._make_input()), self._make_parts()
        shared = set().union(*(node.dependencies for node in given.values()))
        for key, part in parts.items():
            (partition,) = part.dependencies
            if partition not in shared and _can_be_fused(given[partition]):
                parts[key] = Task.fuse(given.pop(partition), part, key=key)
        return given, parts

    def layer(self, number: int) -> Graph:
        """Return what is left of the first layer (0), or the second one (1)."""
        return self._layers[number]


def _can_be_fused(node: Any) -> bool:
    # An alias is no work; and its own key may be that of what it stands for.
    return not (node.block_fusion or isinstance(node, Alias))


def _add_kept(layers: _Layers, kept: Kept) -> Keys:
    staged = Keys(layout.task_key("keep", layers.spec.write_id), sorted(kept.partitions))
    if kept.partitions:
        layers.add(staged.name, partial(_keep, staged, kept, layers.spec))
    return staged


def _keep(staged: Keys, kept: Kept, spec: RunSpec) -> Graph:
    return {
        key: Task(key, tasks.keep, kept.partitions[index], index, spec)
        for key, index in zip(staged, staged.numbers, strict=True)
    }


def _add_stage(
    layers: _Layers, stage: Stage, function: Callable[..., Any], inputs: Keys, *more: Any
) -> Keys:
    made = replace(inputs, name=layout.task_key(stage, layers.spec.write_id))
    make = partial(_apply, function, inputs, made, layers.spec, *more)
    layers.add(made.name, make, stores=stage in LAST_STAGES)
    return made


def _apply(function: Callable[..., Any], inputs: Keys, made: Keys, *more: Any) -> Graph:
    return {
        key: Task(key, function, TaskRef(needed), index, *more)
        for key, needed, index in zip(made, inputs, made.numbers, strict=True)
    }


def _add_schema(layers: _Layers, todo: Keys) -> TaskRef:
    inferred = _add_stage(layers, "infer", tasks.infer, todo)
    return TaskRef(_add_tree(layers, [inferred], tasks.unify, "schema"))


def _add_tree(
    layers: _Layers, inputs: Sequence[Keys], function: Callable[..., Any], stage: Stage
) -> Key:
    """Reduce `inputs` to one key, so many at a time that no task has too many inputs."""
    name, width = layout.task_key(stage, layers.spec.write_id), layers.settings.gather_width
    layers.add(name, partial(_reduce, name, inputs, function, width))
    size, level = 0, sum(map(len, inputs))
    while level > 1 or not size:
        level = -(-level // width)
        size += level
    return name, size - 1


def _reduce(name: str, inputs: Sequence[Keys], function: Callable[..., Any], width: int) -> Graph:
    """Return the tasks of a tree, of which the last gives the result."""
    layer: Graph = {}
    level = list(chain(*inputs))
    while len(level) > 1 or not layer:
        groups = [level[start : start + width] for start in range(0, len(level), width)]
        made = Keys(name, range(len(layer), len(layer) + len(groups)))
        for key, group in zip(made, groups, strict=True):
            layer[key] = Task(key, function, List(*map(TaskRef, group)))
        level = list(made)
    return layer
