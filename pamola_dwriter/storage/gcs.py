"""Google Cloud Storage, through gcsfs.

A part is staged as an object under ``_staging/`` and moved into place, which the service does at
once and without a copy, without early deletion fees, and without keeping the deleted name for its
soft delete policy. Where it refuses to (a role without ``storage.objects.move``, an emulator), the
object is copied by the service, and the staged one deleted. An upload left open, as on
S3, would be no way: the service lists none, and keeps its last bytes only once it is finished.

The condition of a write is the generation of the object, a number that no two versions share.

Neither gcsfs nor its client tries anything again here: how long that is done is decided in one
place.
"""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem

from pamola_dwriter import layout
from pamola_dwriter.contracts import VersionConflict
from pamola_dwriter.spec import Tuning, WriteId
from pamola_dwriter.storage.clouds import CloudStore
from pamola_dwriter.storage.updates import History, Seen

_UPDATES = "pamola-updates"
"""Metadata of what was updated: its :class:`~pamola_dwriter.storage.updates.History`."""

_CHUNK = 2**18
"""The requests of one upload are multiples of this."""

_LOOKS = 16
"""Tries to read an object and what it says of itself, while others keep replacing it."""

_OBJECT = "b/{}/o/{}"

_NO_BUCKET = "there is no bucket {!r}, or not for these credentials"


class GcsStore(CloudStore):
    """A task directory in a bucket."""

    protocol = "gs"
    extra = "gcs"

    def __init__(self, file_system: AbstractFileSystem, root: str, tuning: Tuning) -> None:
        super().__init__(file_system, root, tuning)
        request = type(file_system)._request.__wrapped__  # below the retries of gcsfs
        self._fs._request = partial(_send, partial(request, file_system))

    def is_file(self, path: str) -> bool:
        # That of fsspec takes any failure for a no.
        with self._explained("look up", path):
            try:
                self._run(self._describe(path))
            except FileNotFoundError:
                return False
            return True

    def size(self, path: str) -> int:
        with self._explained("look up", path):
            return int(self._run(self._describe(path))["size"])

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        places = {directory, *(token.rpartition("/")[0] for token in staged.values())}
        there = {layout.join(place, name) for place in places for name in self.listdir(place)}
        return {path for path, token in staged.items() if token in there or path in there}

    def remove(self, paths: Collection[str]) -> None:
        async def delete(path: str) -> None:
            try:
                await self._again(partial(self._call, "DELETE", path))
            except FileNotFoundError:
                return
            except Exception as error:
                raise self._unavailable("delete", path, error) from error

        self._each(delete, paths)

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        with self._explained("write", path):
            return self._stage_file(path, data, write_id)

    def _publish_parts(self, staged: Mapping[str, str]) -> None:
        async def publish(path: str) -> None:
            try:
                await self._again(partial(self._move, staged[path], path))
            except Exception as error:
                raise self._unavailable("publish", path, error) from error

        self._each(publish, staged)

    async def _move(self, staged: str, path: str) -> None:
        """Move a staged part into place; one that an earlier run of finalize has moved stands."""
        bucket, source = self._split(staged)
        _, destination = self._split(path)
        try:
            await self._fs._call(
                "POST", "b/{}/o/{}/moveTo/o/{}", bucket, source, destination, json={}
            )
        except Exception as error:
            if not self._was_answered(error):
                raise
        else:
            return
        try:
            await self._fs._cp_file(self._full(staged), self._full(path))
            await self._call("DELETE", staged)
        except FileNotFoundError:
            await self._describe(path)

    def _was_answered(self, error: Exception) -> bool:
        code = getattr(error, "code", None)
        if code is not None:
            return 400 <= int(code) < 500 and int(code) != 408
        # What gcsfs makes of 404, 412, 403 and some of 400.
        forbidden = type(error) is OSError and str(error).startswith("Forbidden")
        bad = isinstance(error, ValueError) and str(error).startswith("Bad Request")
        return isinstance(error, FileNotFoundError | FileExistsError) or forbidden or bad

    def _write(self, path: str, data: bytes) -> None:
        step = max(_CHUNK, self._tuning.upload_part_size // _CHUNK * _CHUNK)
        if len(data) > step:
            self._fs.pipe_file(self._full(path), data, chunksize=step)
        else:
            self._run(self._upload(path, data))

    def _put_on_condition(
        self, path: str, data: bytes, expected: str | None, history: History | None = None
    ) -> None:
        generation = "0" if expected is None else expected
        if not generation.isdecimal():  # no version of this store
            raise VersionConflict(path)
        with self._explained("write", path):
            try:
                self._run(self._upload(path, data, history, ifGenerationMatch=generation))
            except FileExistsError as error:  # what gcsfs makes of a condition that does not hold
                raise VersionConflict(path) from error

    async def _upload(
        self, path: str, data: bytes, history: History | None = None, **parameters: str
    ) -> dict[str, Any]:
        """Write an object in one request; return what the service says of it."""
        bucket, key = self._split(path)
        metadata = {_UPDATES: history.dump()} if history is not None else {}
        body, kind = _with_description(data, {"name": key, "metadata": metadata})
        try:
            made: dict[str, Any] = await self._fs._call(
                *("POST", f"{self._fs._location}/upload/storage/v1/b/{{}}/o", bucket),
                headers={"Content-Type": kind},
                data=body,
                json_out=True,
                uploadType="multipart",
                **parameters,
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(_NO_BUCKET.format(bucket)) from error
        return made

    async def _get(self, path: str) -> Seen:
        for tries_left in reversed(range(_LOOKS)):
            description = await self._describe(path)
            generation = description["generation"]
            try:
                _, data = await self._call("GET", path, alt="media", generation=generation)
            except FileNotFoundError:  # replaced or removed in between
                if not tries_left:
                    raise ConnectionError("others keep replacing it") from None
                continue
            kept = description.get("metadata") or {}
            return Seen(data, generation, History.parse(kept.get(_UPDATES)))
        raise AssertionError("unreachable")

    async def _time_of(self, path: str) -> float:
        return datetime.fromisoformat((await self._describe(path))["updated"]).timestamp()

    async def _describe(self, path: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._call("GET", path, json_out=True)
        except FileNotFoundError:
            await self._check_bucket()
            raise
        return found

    async def _check_bucket(self) -> None:
        """Raise OSError if it is the bucket that is absent, which gcsfs does not tell apart."""
        bucket, _ = self._split("")
        try:
            await self._fs._call("GET", "b/{}/o", bucket, maxResults="1")
        except FileNotFoundError:
            raise OSError(_NO_BUCKET.format(bucket)) from None

    async def _call(self, method: str, path: str, **parameters: Any) -> Any:
        return await self._fs._call(method, _OBJECT, *self._split(path), **parameters)

    def _split(self, path: str) -> tuple[str, str]:
        bucket, _, key = self._full(path).partition("/")
        return bucket, key


async def _send(request: Callable[..., Awaitable[Any]], *place: str, **options: Any) -> Any:
    """Send a request, a body of bytes piece by piece.

    Given all of a large one at once, aiohttp would hold up every other request, and warns of it.
    """
    body = options.get("data")
    if isinstance(body, bytes | memoryview):
        options["data"] = io.BytesIO(body)
    return await request(*place, **options)


def _with_description(data: bytes, description: dict[str, Any]) -> tuple[bytes, str]:
    """Return the body and the content type of an upload that describes its object.

    gcsfs makes such bodies too, but always divides them by the same text, at which data that
    holds it would end.
    """
    border = token_hex(16)
    head = (
        f"--{border}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(description)}\r\n"
        f"--{border}\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
    return body, f"multipart/related; boundary={border}"
