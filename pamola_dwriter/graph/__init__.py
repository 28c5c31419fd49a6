"""Compile one run into a Dask graph; no I/O happens here, so a graph is safe to throw away.

::

    partition 0 ─► serialize ─► encrypt ─► put ─┐
    partition 1 ─► serialize ─► encrypt ─► put ─┼─► gather (tree) ─► commit ─► WriterResult
    ...                                         ┘

A partition is computed by the task that serializes it. Columns whose type only the data can tell
add a ``schema`` layer between the two. Where there are many partitions each is one task, from its
input to its parts on the store, and publishing is spread over the workers: see
:mod:`~pamola_dwriter.graph.committing`. What an interrupted run has staged goes straight from its
record to gather. A layer becomes tasks on the scheduler. The one package with Dask's private task
classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from dask._task_spec import Task, TaskRef, convert_legacy_graph, cull
from dask.highlevelgraph import HighLevelGraph

from pamola_dwriter import tasks
from pamola_dwriter.graph.committing import add_commit
from pamola_dwriter.graph.fusion import Fusion
from pamola_dwriter.graph.layers import Layers
from pamola_dwriter.graph.source import Graph, Key, Keys, Source
from pamola_dwriter.graph.tree import add_tree, reduce
from pamola_dwriter.layout import Stage
from pamola_dwriter.progress import LAST_STAGES
from pamola_dwriter.records import Kept
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec

_INPUT = "pamola-input"


def compile_write(
    source: Source, spec: RunSpec, settings: Settings, kept: Kept
) -> tuple[HighLevelGraph, Key]:
    """Return the graph of a write, and the key of its WriterResult."""
    spec = replace(spec, partitions=1 if spec.target.single_file else len(source.keys))
    layers = Layers(spec, settings)
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
    final = add_commit(layers, [parts, _add_kept(layers, kept)], resolved)
    return layers.graph(), final


def _cull(make: Callable[[], Graph], keys: Keys) -> Graph:
    """Leave out what none of `keys` needs."""
    return cull(convert_legacy_graph(make()), set(keys)) if len(keys) else {}


def _add_combined(layers: Layers, todo: Keys) -> Keys:
    one = Keys(f"pamola-combine-{layers.spec.write_id}", range(1))
    layers.add(one.name, partial(reduce, one.name, [todo], tasks.combine, len(todo)))
    return one


def _add_storing(layers: Layers, pieces: Keys, resolved: Any) -> Keys:
    if layers.spec.sealing is not None:
        pieces = _add_stage(layers, "encrypt", tasks.encrypt, pieces)
    return _add_stage(layers, "put", tasks.put, pieces, resolved)


def _add_with_input(
    layers: Layers,
    make: Callable[[], Graph],
    stage: Stage,
    function: Callable[..., Any],
    todo: Keys,
    resolved: pa.Schema | None,
) -> Keys:
    """Add the input and the stage that takes it in, as one task where nothing else needs it.

    Then its memory is free for the next partition; see ``benchmarks/README.md``.
    """
    made = replace(todo, name=layers.name(stage))
    fusion = Fusion(make, partial(_apply, function, todo, made, layers.spec, resolved))
    layers.add(_INPUT, partial(fusion.layer, 0))
    layers.add(made.name, partial(fusion.layer, 1), stores=stage in LAST_STAGES)
    return made


def _add_kept(layers: Layers, kept: Kept) -> Keys:
    staged = Keys(layers.name("keep"), sorted(kept.partitions))
    if kept.partitions:
        layers.add(staged.name, partial(_keep, staged, kept, layers.spec))
    return staged


def _keep(staged: Keys, kept: Kept, spec: RunSpec) -> Graph:
    return {
        key: Task(key, tasks.keep, kept.partitions[index], index, spec)
        for key, index in zip(staged, staged.numbers, strict=True)
    }


def _add_stage(
    layers: Layers, stage: Stage, function: Callable[..., Any], inputs: Keys, *more: Any
) -> Keys:
    made = replace(inputs, name=layers.name(stage))
    make = partial(_apply, function, inputs, made, layers.spec, *more)
    layers.add(made.name, make, stores=stage in LAST_STAGES)
    return made


def _apply(function: Callable[..., Any], inputs: Keys, made: Keys, *more: Any) -> Graph:
    return {
        key: Task(key, function, TaskRef(needed), index, *more)
        for key, needed, index in zip(made, inputs, made.numbers, strict=True)
    }


def _add_schema(layers: Layers, todo: Keys) -> TaskRef:
    inferred = _add_stage(layers, "infer", tasks.infer, todo)
    return TaskRef(add_tree(layers, [inferred], tasks.unify, "schema"))
