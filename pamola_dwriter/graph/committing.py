"""From the records of staged partitions to the commit.

::

    put ─► gather (tree) ─► commit                                     up to gather-width partitions

    put ─► gather ─┬─► count (tree) ─► claim ─┐
                   └──────────────────────────┴─► publish ─► collect (tree) ─► commit

A publish task takes the partitions of one gather task, on whatever worker holds their records. What
the commit lists is what these tasks return, so that what one of them does again, since a worker
died, cannot differ from what is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dask._task_spec import List, Task, TaskRef

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
    """Add tasks that publish, once all is staged, and that collect what they return."""
    width = layers.settings.gather_width
    groups = Keys(layers.name("gather"), range(-(-sum(map(len, staged)) // width)))
    layers.add(groups.name, partial(group, groups.name, staged, tasks.gather, width))
    counts = replace(groups, name=layers.name("count"))
    layers.add(counts.name, partial(_count, groups, counts, width))
    claim = layers.name("claim")
    total = root(counts.name, len(counts), width, first=len(counts))
    layers.add(claim, partial(_claim, claim, total, layers.spec), stores=True)
    published = replace(groups, name=layers.name("publish"))
    make = partial(_publish, published, groups, claim, layers.spec)
    layers.add(published.name, make, stores=True)
    collected = layers.name("collect")
    layers.add(collected, partial(_collect, collected, published, counts, width))
    _, last = root(collected, len(published), width)
    return collected, last + 1


def _count(groups: Keys, counts: Keys, width: int) -> Graph:
    """Count the partitions of each group where their records are, and add the counts up."""
    counted = {
        key: Task(key, len, TaskRef(records)) for key, records in zip(counts, groups, strict=True)
    }
    return counted | reduce(counts.name, [counts], sum, width, first=len(counts))


def _claim(claim: Key, total: Key, spec: RunSpec) -> Graph:
    return {claim: Task(claim, publishing.claim, TaskRef(total), spec)}


def _publish(published: Keys, groups: Keys, claim: Key, spec: RunSpec) -> Graph:
    return {
        key: Task(key, publishing.publish, TaskRef(records), TaskRef(claim), spec)
        for key, records in zip(published, groups, strict=True)
    }


def _collect(name: str, published: Keys, counts: Keys, width: int) -> Graph:
    """Gather the records, and compare them with the counts.

    Which are kept until then by that: when a worker dies that held the claim, it is made again of
    those that the others hold, and not by staging everything once more.
    """
    tree = reduce(name, [published], tasks.gather, width)
    gathered, key = (name, len(tree) - 1), (name, len(tree))
    tree[key] = Task(key, publishing.check_counts, TaskRef(gathered), List(*map(TaskRef, counts)))
    return tree
