"""dask-jobqueue's cluster of SLURM, without what importing it does to Ctrl-C.

Its module ``runner`` sets a handler of SIGINT that ends the process with exit code 0, in whoever
imports the package (dask-jobqueue 0.9.0).
"""

from __future__ import annotations

import signal

_interrupted = signal.getsignal(signal.SIGINT)
from dask_jobqueue.slurm import SLURMCluster  # noqa: E402 - the handler has to be kept first

signal.signal(signal.SIGINT, _interrupted)

__all__ = ["SLURMCluster"]
