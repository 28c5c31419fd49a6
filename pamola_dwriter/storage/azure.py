"""Azure Blob Storage and Data Lake Storage Gen2, through adlfs.

A part is staged as blocks of a blob that has no block list yet: they are durable, and the blob
does not exist for anyone who reads or lists, until publishing commits the list. Whoever commits
it again changes nothing. The service forgets such blocks a week after the last of them.

A listing does not tell when a block was sent. So each part has one block more, which is never
committed and whose name holds the time by the clock of the service.

There is no request that drops uncommitted blocks. They go when an empty list is committed, and
the empty file that makes is deleted at once; it is made only if no file stands there, so that a
publication which was faster keeps its blocks.

The SDK tries nothing again here: how long that is done is decided in one place.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, VersionConflict
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.spec import Tuning, WriteId
from pamola_dwriter.storage.clouds import CloudStore, for_each
from pamola_dwriter.storage.updates import History, Seen

_UPDATES = "pamola_updates"
"""Metadata of what was updated: its :class:`~pamola_dwriter.storage.updates.History`."""

_LARGEST_FILE = 5000 * 2**20
"""What the service takes in one request, which alone writes whole or not at all."""

_MOST_BLOCKS = 50_000
_UPLOADS_AT_ONCE = 4
_UNCOMMITTED = "uncommitted"
_DROPPED = "pamola_dropped"
"""Metadata of the empty file that takes the place of dropped blocks until it is deleted."""

_TIME = "time-"


class AzureStore(CloudStore):
    """A task directory in a container.

    Where the account has a hierarchical namespace, folders stay when their last file is removed.
    """

    protocol = "abfs"
    extra = "azure"

    def __init__(self, file_system: AbstractFileSystem, root: str, tuning: Tuning) -> None:
        super().__init__(file_system, root, tuning)
        config = self._fs.service_client._config
        config.retry_policy.total_retries = 0
        config.max_single_put_size = _LARGEST_FILE

    def is_file(self, path: str) -> bool:
        # That of adlfs takes any failure for a no.
        with self._explained("look up", path):
            try:
                return not _is_folder(self._run(self._properties(path)))
            except FileNotFoundError:
                return False

    def size(self, path: str) -> int:
        with self._explained("look up", path):
            return int(self._run(self._properties(path)).size)

    def listdir(self, path: str) -> list[str]:
        start = len(self._prefix(path))
        with self._explained("list", path):
            return sorted(blob.name[start:] for blob in self._run(self._list(path)))

    def survey(self, path: str) -> list[Found]:
        start = len(self._prefix(""))
        with self._explained("list", path):
            # In this order: what is published meanwhile is a file of the second list.
            begun = {blob.name for blob in self._run(self._list(path, uncommitted=True))}
            files = {blob.name: blob.last_modified for blob in self._run(self._list(path))}
            staged = self._each(self._look_at_staged, sorted(n[start:] for n in begun - set(files)))
        found = [Found(path=n[start:], modified=m.timestamp()) for n, m in sorted(files.items())]
        return found + [each for each in staged if each is not None]

    def discard(self, found: Collection[Found]) -> None:
        super().discard(found)
        self._each(self._drop, [each.path for each in found if each.upload is not None])

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        async def stands(path: str) -> bool:
            try:
                lists = await self._blocks(path)
            except FileNotFoundError:
                return False
            return any(set(_block_names(int(staged[path]))) <= names for names in lists)

        with self._explained("list", directory):
            return {
                path for path, yes in zip(staged, self._each(stands, staged), strict=True) if yes
            }

    def remove(self, paths: Collection[str]) -> None:
        self._each(self._delete, paths)

    def _withdraw(self, directory: str, write_ids: Collection[WriteId]) -> None:
        start = len(self._prefix(""))
        with self._explained("list", directory):
            begun = {blob.name for blob in self._run(self._list(directory, uncommitted=True))}
            begun -= {blob.name for blob in self._run(self._list(directory))}
        ours = sorted(name[start:] for name in begun if layout.write_id_of(name) in write_ids)
        self._each(self._drop, ours)

    def _was_answered(self, error: Exception) -> bool:
        status = _status(error)
        return status is not None and 400 <= status < 500 and status != 408

    def _unavailable(self, action: str, path: str, error: Exception) -> TargetUnavailableError:
        failure = super()._unavailable(action, path, error)
        # The SDK goes on with a request id, a time and the body of the reply.
        first, *rest = str(failure).split("\n")
        failure.args = (first + (self._remedy(error) if rest else ""),)
        return failure

    def _write(self, path: str, data: bytes) -> None:
        self._run(self._upload(path, data))

    def _put_on_condition(
        self, path: str, data: bytes, expected: str | None, history: History | None = None
    ) -> None:
        metadata = {_UPDATES: history.dump()} if history is not None else None
        with self._explained("write", path):
            try:
                self._run(self._upload(path, data, metadata=metadata, **_condition(expected)))
            except Exception as error:
                if _is_conflict(error):
                    raise VersionConflict(path) from error
                raise

    def _stage_part(self, path: str, data: pa.Buffer) -> str:
        return str(self._run(self._stage_blocks(path, data)))

    def _publish_parts(self, staged: Mapping[str, str]) -> None:
        async def commit(path: str) -> None:
            names = _block_names(int(staged[path]))
            try:
                await self._again(partial(self._blob(path).commit_block_list, names))
            except Exception as error:
                raise self._unavailable("publish", path, error) from error

        self._each(commit, staged)

    async def _upload(self, path: str, data: bytes, **options: Any) -> None:
        await self._blob(path).upload_blob(
            data, overwrite=True, raw_request_hook=_send_in_pieces, **options
        )

    async def _stage_blocks(self, path: str, data: pa.Buffer) -> int:
        step = max(self._tuning.upload_part_size, -(-data.size // _MOST_BLOCKS))
        starts = range(0, data.size, step)

        async def send(name: str, body: bytes) -> float:
            async def once() -> Any:
                return await self._blob(path).stage_block(name, io.BytesIO(body), len(body))

            reply = await self._again(once)
            return float(reply["date"].timestamp())

        async def send_slice(start: int) -> float:
            body = data.slice(start, min(step, data.size - start)).to_pybytes()
            return await send(_block_name(start // step), body)

        times = await for_each(send_slice, starts, at_once=_UPLOADS_AT_ONCE)
        await send(_time_name(max(times or [await send(_time_name(0), b"?")])), b"?")
        return len(starts)

    async def _drop(self, path: str) -> None:
        """Drop what was staged and not committed, unless it is by now."""
        blob = self._blob(path)
        try:
            await self._blocks(path)
            await blob.commit_block_list([], metadata={_DROPPED: "true"}, **_condition(None))
        except FileNotFoundError:
            return
        except Exception as error:
            if not _is_conflict(error):
                raise self._unavailable("drop blocks of", path, error) from error
            if not await self._is_dropped(path):
                return
        await self._delete(path)

    async def _is_dropped(self, path: str) -> bool:
        """Return whether the file is the empty one of a drop, the reply to which was lost."""
        try:
            return _DROPPED in _metadata(await self._properties(path))
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._unavailable("look up", path, error) from error

    async def _delete(self, path: str) -> None:
        try:
            await self._again(self._blob(path).delete_blob)
        except Exception as error:
            if _code(error) != "BlobNotFound":
                raise self._unavailable("delete", path, error) from error

    async def _look_at_staged(self, path: str) -> Found | None:
        dates: list[str] = []
        try:
            _, names = await self._blocks(
                path,
                raw_response_hook=lambda reply: dates.append(reply.http_response.headers["Date"]),
            )
        except FileNotFoundError:  # dropped meanwhile
            return None
        times = [float(name[len(_TIME) :]) for name in names if name.startswith(_TIME)]
        # Without a time it is being staged right now; or was broken off, and has a week to live.
        modified = max(times) if times else parsedate_to_datetime(dates[0]).timestamp()
        return Found(path=path, modified=modified, upload=_UNCOMMITTED)

    async def _blocks(self, path: str, **options: Any) -> tuple[set[str], set[str]]:
        """Return the names of the committed and of the uncommitted blocks."""
        try:
            lists = await self._again(partial(self._blob(path).get_block_list, "all", **options))
        except Exception as error:
            _raise_if_absent(error, path)
            raise
        committed, uncommitted = ({block.id for block in blocks} for blocks in lists)
        return committed, uncommitted

    async def _get(self, path: str) -> Seen:
        try:
            stream = await self._blob(path).download_blob()
            data = await stream.readall()
        except Exception as error:
            _raise_if_absent(error, path)
            raise
        history = History.parse(_metadata(stream.properties).get(_UPDATES))
        return Seen(data, stream.properties.etag, history)

    async def _time_of(self, path: str) -> float:
        return float((await self._properties(path)).last_modified.timestamp())

    async def _properties(self, path: str) -> Any:
        try:
            return await self._blob(path).get_blob_properties()
        except Exception as error:
            _raise_if_absent(error, path)
            raise

    async def _list(self, path: str, *, uncommitted: bool = False) -> list[Any]:
        container, _ = self._split(path)
        listed = self._fs.service_client.get_container_client(container).list_blobs(
            name_starts_with=self._prefix(path),
            include=["metadata", *(["uncommittedblobs"] if uncommitted else [])],
        )
        return [blob async for blob in listed if not _is_folder(blob)]

    def _blob(self, path: str) -> Any:
        return self._fs.service_client.get_blob_client(*self._split(path))

    def _prefix(self, directory: str) -> str:
        _, key = self._split(directory)
        return f"{key}/" if key else ""

    def _split(self, path: str) -> tuple[str, str]:
        container, _, key = self._full(path).partition("/")
        return container, key


def _block_names(count: int) -> list[str]:
    return [_block_name(number) for number in range(count)]


def _block_name(number: int) -> str:
    """Name a block; all names of one blob have one length, that of :func:`_time_name` too."""
    return f"part-{number:010d}"


def _time_name(seconds: float) -> str:
    return f"{_TIME}{int(seconds):010d}"


def _send_in_pieces(request: Any) -> None:
    """Have a body sent piece by piece.

    Given all of a large one at once, aiohttp would hold up every other request, and warns of it.
    """
    sent = request.http_request
    sent.data = io.BytesIO(sent.data)


def _is_folder(blob: Any) -> bool:
    """Return whether this is what stands for a folder in a hierarchical namespace."""
    return _metadata(blob).get("hdi_isfolder") == "true"


def _metadata(blob: Any) -> dict[str, str]:
    """Return what is kept with a blob; the case of the names is not preserved everywhere."""
    return {name.lower(): value for name, value in (blob.metadata or {}).items()}


def _condition(expected: str | None) -> dict[str, Any]:
    from azure.core import MatchConditions  # noqa: PLC0415 - it comes with an extra

    if expected is None:
        return {"match_condition": MatchConditions.IfMissing}
    return {"match_condition": MatchConditions.IfNotModified, "etag": expected}


def _is_conflict(error: BaseException) -> bool:
    # Not any 412: that is also the answer where somebody holds a lease on the blob.
    return _code(error) in ("BlobAlreadyExists", "BlobNotFound", "ConditionNotMet")


def _raise_if_absent(error: Exception, path: str) -> None:
    """Raise FileNotFoundError where the service says so of the blob."""
    if _status(error) == 404 and _code(error) != "ContainerNotFound":
        raise FileNotFoundError(f"there is no {path!r}") from error


def _code(error: BaseException) -> str:
    found = getattr(error, "error_code", None)
    return str(getattr(found, "value", found))


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None
