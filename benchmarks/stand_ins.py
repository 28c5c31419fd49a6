"""Stand-ins for workers: they join a real scheduler, and answer that each task is done at once.

All of them are connections of one process, so that thousands fit on a machine. What they send is
what a worker sends that stores a part: the event with its rows and bytes, which inputs it has
fetched from others, and that the task is finished. They compute nothing, hold nothing, and send no
heartbeats.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distributed import Client
from distributed.comm import CommClosedError, connect

from pamola_dwriter import layout
from pamola_dwriter.events import TOPIC, PartitionStaged

SCHEDULER_ENVIRONMENT = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "None"}
"""For a scheduler that has stand-ins, which it would else give up after five minutes."""

RESULT_BYTES = 1000
"""Size of every result: that of a part record."""

_STORING = frozenset({"put", "part"})
_JOINING = 50
"""How many join at the same time."""
_START_SECONDS = 120.0
_TYPE = pickle.dumps(dict)
_METRICS: Mapping[str, Any] = {
    "bandwidth": {"total": 100_000_000, "workers": {}, "types": {}},
    "digests_total_since_heartbeat": {},
    "memory": 200_000_000,
    "spilled_bytes": {"memory": 0, "disk": 0},
    "managed_bytes": 0,
}


@contextmanager
def stand_ins(client: Client, count: int) -> Iterator[None]:
    """Let so many join the scheduler of a client, each with one thread.

    Raises
    ------
    TimeoutError
        They had not joined in time.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(client.scheduler.address, count), daemon=True
    )
    process.start()
    try:
        client.wait_for_workers(count, timeout=_START_SECONDS)
        yield
    finally:
        process.kill()
        process.join()


def _run(scheduler: str, count: int) -> None:
    asyncio.run(_serve_all(scheduler, count))


async def _serve_all(scheduler: str, count: int) -> None:
    room = asyncio.Semaphore(_JOINING)
    await asyncio.gather(*(_serve(scheduler, number, room) for number in range(count)))


async def _serve(scheduler: str, number: int, room: asyncio.Semaphore) -> None:
    # Each on a host of its own, where nobody listens: the scheduler has no call to make.
    address = f"tcp://127.{1 + number // 2**16}.{number // 256 % 256}.{number % 256}:1"
    async with room:
        comm = await connect(scheduler, deserialize=False)
        await comm.write(_registration(address), serializers=["msgpack"])
        reply = await comm.read(deserializers=["msgpack"])
    if reply["status"] != "OK":
        raise RuntimeError(f"a stand-in may not join: {reply}")
    try:
        while True:
            messages = await comm.read()
            if answers := [each for message in messages for each in answer(message, address)]:
                await comm.write(answers)
    except CommClosedError:
        return


def _registration(address: str) -> dict[str, Any]:
    return {
        "op": "register-worker",
        "reply": False,
        "address": address,
        "status": "running",
        "nthreads": 1,
        "name": address,
        "now": time.time(),
        "resources": {},
        "memory_limit": 4 * 2**30,
        "local_directory": "",
        "services": {},
        "nanny": None,
        "pid": 0,
        "versions": {},
        "metrics": dict(_METRICS),
        "extra": {},
        "stimulus_id": f"worker-connect-{time.time()}",
        "server_id": address,
    }


def answer(message: Mapping[str, Any], address: str) -> Iterator[dict[str, Any]]:
    """Return what the worker at an address tells the scheduler of a message, once it has done it.

    A worker asks each of the others for all that it needs of it, and says so then.
    """
    if message["op"] != "compute-task":
        return
    fetched = defaultdict(list)
    for key, holders in message["who_has"].items():
        if address not in holders:
            fetched[holders[0]].append(key)
    stimulus = {"stimulus_id": message["stimulus_id"]}
    for keys in fetched.values():
        yield {"op": "add-keys", "keys": keys, **stimulus}
    if event := _event(message["key"]):
        yield {"op": "log-event", "topic": TOPIC, "msg": event}
    now = time.time()
    yield {
        "op": "task-finished",
        "status": "OK",
        "key": message["key"],
        "run_id": message["run_id"],
        "nbytes": RESULT_BYTES,
        "type": _TYPE,
        "typename": "dict",
        "metadata": {},
        "thread": 1,
        "startstops": [{"action": "compute", "start": now, "stop": now}],
        **stimulus,
    }


def _event(key: object) -> dict[str, Any] | None:
    """Return what a task that stores a partition tells of it; None for any other task."""
    parsed = layout.parse_task_key(key)
    if parsed is None or parsed[0] not in _STORING or parsed[2] is None:
        return None
    _, write_id, partition = parsed
    return PartitionStaged(
        write_id=write_id,
        partition=partition,
        parts=1,
        rows=10,
        size_bytes=1000,
        memory_bytes=500,
    ).to_message()
