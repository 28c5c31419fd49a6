"""From the records of staged partitions to the commit.

::

    put ─► gather (tree) ─► commit                                     up to gather-width partitions

    put ─► gather ─┬─► count (tree) ─► claim ─┐
                   └──────────────────────────┴─► publish ─► gather (tree) ─► commit

A publish task takes the partitions of one gather task, on whatever worker holds their records. What
the commit lists is what these tasks return, so that what one of them does again, since a worker
died, cannot differ from what is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dask._task_spec import Task, TaskRef

from pamola_dwriter import finalize, publishing, tasks
from pamola_dwriter.events import ANNOTATION, WriteAnnounced
from pamola_dwriter.graph.layers import Layers
from pamola_dwriter.graph.source import Graph, Key, Keys
from pamola_dwriter.graph.tree import add_tree, group, reduce, root
from pamola_dwriter.spec import RunSpec


def add_commit(layers: Layers, staged: Sequence[Keys], resolved: Any) -> Key:
    """Add what makes a version of staged partitions; return the key of the WriterResult."""
    spec = layers.spec
    if sum(map(len, staged)) > layers.settings.gather_width:
        gathered = _add_publishing(layers, staged)
    else:
        gathered = add_tree(layers, staged, tasks.gather, "gather")
    key = layers.name("commit")
    commit = Task(key, finalize.finalize, TaskRef(gathered), resolved, spec)
    announced = {ANNOTATION: WriteAnnounced.of(spec).to_message()}
    layers.add(key, partial(dict, {key: commit}), stores=True, more=announced)
    return key


def _add_publishing(layers: Layers, staged: Sequence[Keys]) -> Key:
    """Add tasks that publish, and gather what they return."""
    name, width = layers.name("gather"), layers.settings.gather_width
    layers.add(name, partial(group, name, staged, tasks.gather, width))
    groups = Keys(name, range(-(-sum(map(len, staged)) // width)))
    published = replace(groups, name=layers.name("publish"))
    claim = _add_claim(layers, groups)
    make = partial(_publish, groups, published, claim, layers.spec)
    layers.add(published.name, make, stores=True)
    gather = partial(reduce, name, [published], tasks.gather, width, first=len(groups))
    layers.add(f"{name}-published", gather)
    return root(name, len(groups), width, first=len(groups))


def _publish(groups: Keys, published: Keys, claim: Key, spec: RunSpec) -> Graph:
    return {
        key: Task(key, publishing.publish, TaskRef(records), TaskRef(claim), spec)
        for key, records in zip(published, groups, strict=True)
    }


def _add_claim(layers: Layers, groups: Keys) -> Key:
    """Add a task that waits until all partitions are staged, however few of them it is told of."""
    counts = replace(groups, name=layers.name("count"))
    width = layers.settings.gather_width
    layers.add(counts.name, partial(_count, groups, counts, width))
    total = root(counts.name, len(counts), width, first=len(counts))
    key = layers.name("claim")
    claim = Task(key, publishing.claim, TaskRef(total), layers.spec)
    layers.add(key, partial(dict, {key: claim}), stores=True)
    return key


def _count(groups: Keys, counts: Keys, width: int) -> Graph:
    """Count the partitions of each group where their records are, and add the counts up."""
    counted = {
        key: Task(key, len, TaskRef(records)) for key, records in zip(counts, groups, strict=True)
    }
    return counted | reduce(counts.name, [counts], sum, width, first=len(counts))
