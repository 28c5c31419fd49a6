"""How far a write has come: a fold over events, and the snapshots that every view reads.

Pure: no clock, no I/O. Times are seconds since the epoch, given by whoever feeds the fold.
"""

from __future__ import annotations

from pamola_dwriter.progress.fold import Fold
from pamola_dwriter.progress.history import History, Sample
from pamola_dwriter.progress.sizes import Amount
from pamola_dwriter.progress.snapshot import Failure, Snapshot, StageCounts, Status
from pamola_dwriter.progress.stages import (
    LAST_STAGES,
    PARTITION_STAGES,
    PartitionState,
    TaskState,
)

__all__ = [
    "LAST_STAGES",
    "PARTITION_STAGES",
    "Amount",
    "Failure",
    "Fold",
    "History",
    "PartitionState",
    "Sample",
    "Snapshot",
    "StageCounts",
    "Status",
    "TaskState",
]
