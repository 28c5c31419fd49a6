"""``python -m deploy.kubernetes.retire SECONDS``: let this pod's worker hand over, then end it.

Run before a worker's pod is stopped (its ``preStop`` hook): the scheduler gives the worker no new
task, copies results that it alone holds to others, and closes it. Dask on its own drops them when
the pod gets SIGTERM and has them computed again. Scheduler, worker and TLS files are those of the
pod's environment.

It never fails: a pod that cannot reach its scheduler has nothing to hand over to.
"""

from __future__ import annotations

import os
import sys
from asyncio import CancelledError

from distributed import Client, Security


def retire(scheduler: str, worker: str, seconds: float) -> None:
    """Retire one worker by its name.

    Parameters
    ----------
    scheduler : str
        Address.
    worker : str
        Name that it was started with.
    seconds : float
        Longest wait: what is not handed over by then is lost to the worker, and computed again.
    """
    with Client(scheduler, security=Security(), timeout=seconds, set_as_default=False) as client:
        client.sync(
            client.scheduler.retire_workers,
            names=[worker],
            close_workers=True,
            callback_timeout=seconds,
        )


def main() -> None:
    """Retire the worker of this pod."""
    try:
        retire(
            os.environ["DASK_SCHEDULER_ADDRESS"],
            os.environ["DASK_WORKER_NAME"],
            float(sys.argv[1]),
        )
    except (OSError, TimeoutError, CancelledError) as error:
        print(f"not retired: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main()
