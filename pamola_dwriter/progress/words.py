"""A snapshot in words, the same in every view."""

from __future__ import annotations

from dask.utils import format_bytes

from pamola_dwriter.progress.snapshot import Snapshot, StageCounts


def in_words(snapshot: Snapshot) -> list[str]:
    """Return what is to be said of a write beside how many partitions are done.

    The most important comes first; what is not known, or nothing out of the ordinary, is left out.
    """
    parted = snapshot.parts != snapshot.partitions_done
    words = [
        f"{snapshot.parts:,} parts" if parted else "",
        f"{snapshot.rows:,} rows",
        format_bytes(snapshot.size_bytes),
        f"{len(snapshot.failures):,} failed" if snapshot.failures else "",
        f"{snapshot.retried:,} retried" if snapshot.retried else "",
        f"{span_of_time(snapshot.eta)} to go" if snapshot.eta is not None else "",
        f"{format_bytes(int(snapshot.rate))}/s" if snapshot.rate else "",
    ]
    return [one for one in words if one]


def partitions_in_words(snapshot: Snapshot) -> str:
    """Return how many partitions are done, and how long that took."""
    done = f"{snapshot.partitions_done:,} of {snapshot.partitions:,} partitions"
    return f"{done} in {span_of_time(snapshot.elapsed)}"


def stage_in_words(counts: StageCounts) -> str:
    """Return how the tasks of a stage stand."""
    words = [f"{counts.done:,} of {counts.total:,}"]
    words += [f"{counts.retried:,} retried"] if counts.retried else []
    words += [f"{counts.failed:,} failed"] if counts.failed else []
    words += [f"{counts.cancelled:,} cancelled"] if counts.cancelled else []
    return ", ".join(words)


def kind_of(snapshot: Snapshot) -> str:
    """Return format and whether it is encrypted."""
    return f"{snapshot.format}, encrypted" if snapshot.encrypted else snapshot.format


def span_of_time(seconds: float | None) -> str:
    """Return a span in whole seconds, minutes and hours; a dash if it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
