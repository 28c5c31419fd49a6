"""What the page says beside its plots, as HTML; whatever comes from users is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlencode

from dask.utils import format_bytes

from pamola_dwriter.progress import Failure, Snapshot
from pamola_dwriter.progress.words import kind_of, span_of_time
from pamola_dwriter.spec import WriteId

EMPTY = "<p class='empty'>No write has been seen on this cluster yet.</p>"

_MOST_FAILURES = 10


def writes_table(snapshots: Iterable[Snapshot], chosen: WriteId, theme: str) -> str:
    """Return a row for each write, the newest first; its name is the link to its details."""
    heads = [
        *("Write", "Status", "Format", "Partitions", "Parts", "Rows", "Stored", "Rate"),
        *("To go", "Elapsed", "Workers", "Retried", "Failures"),
    ]
    rows = [
        _row(_cells(one, theme), one.write_id == chosen)
        for one in sorted(snapshots, key=lambda one: -one.started)
    ]
    head = "".join(f"<th>{one}</th>" for one in heads)
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _cells(one: Snapshot, theme: str) -> list[str]:
    query = escape(urlencode({"write": one.write_id, "theme": theme}))
    share = one.partitions_done / one.partitions if one.partitions else 0
    done = f"{one.partitions_done:,} / {one.partitions:,}"
    return [
        f"<a href='?{query}'>{escape(_name(one))}</a>",
        _status(one),
        escape(kind_of(one)),
        f"<span class='share' style='--share:{share:.1%}'>{done}</span>",
        f"{one.parts:,}",
        f"{one.rows:,}",
        format_bytes(one.size_bytes),
        f"{format_bytes(int(one.rate))}/s",
        span_of_time(one.eta),
        span_of_time(one.elapsed),
        f"{one.workers:,}",
        f"{one.retried:,}",
        f"{len(one.failures):,}",
    ]


def _row(cells: Sequence[str], chosen: bool) -> str:
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr{' class=chosen' if chosen else ''}>{inner}</tr>"


def headline(one: Snapshot) -> str:
    """Return the name and the figures of a write."""
    figures = {
        "partitions": f"{one.partitions_done:,} / {one.partitions:,}",
        "parts": f"{one.parts:,}",
        "rows": f"{one.rows:,}",
        "stored": format_bytes(one.size_bytes),
        "taken in": format_bytes(one.memory_bytes),
        "stored a second": format_bytes(int(one.rate)),
        "elapsed": span_of_time(one.elapsed),
        "to go": span_of_time(one.eta),
        "workers": f"{one.workers:,}",
        "retried": f"{one.retried:,}",
    }
    cells = "".join(
        f"<div class='figure'><b>{value}</b><span>{label}</span></div>"
        for label, value in figures.items()
    )
    about = " &middot; ".join(
        escape(text) for text in (kind_of(one), one.url, one.write_id) if text
    )
    return (
        f"<div class='headline'>{_status(one)}<b class='name'>{escape(_name(one))}</b>"
        f"<span class='about'>{about}</span></div><div class='figures'>{cells}</div>"
    )


def failures_table(failures: Sequence[Failure]) -> str:
    """Return what raised, by partition; what the exceptions said may quote data and is not here."""
    if not failures:
        return "<b class='title'>Failures</b><p class='soft'>None.</p>"
    heads = "".join(f"<th>{head}</th>" for head in ("Partition", "Stage", "Exception"))
    rows = "".join(
        _row([_partition(one), escape(one.stage), escape(one.kind)], chosen=False)
        for one in failures[:_MOST_FAILURES]
    )
    more = len(failures) - _MOST_FAILURES
    rest = f"<p class='soft'>and {more:,} more</p>" if more > 0 else ""
    return f"<b class='title'>Failures</b><table><tr>{heads}</tr>{rows}</table>{rest}"


def _partition(one: Failure) -> str:
    return "-" if one.partition is None else f"{one.partition:,}"


def _status(one: Snapshot) -> str:
    return f"<span class='status {one.status}'>{one.status}</span>"


def _name(one: Snapshot) -> str:
    return one.name or one.write_id
