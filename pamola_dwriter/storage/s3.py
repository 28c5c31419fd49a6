"""S3 and servers that speak its protocol, through s3fs.

A part is a multipart upload to its final key that is left incomplete: it is durable, and
invisible, until publishing completes it. The manifest is one conditional PUT
(``If-None-Match`` or ``If-Match``): the completion of a multipart upload is not an atomic
create on every server, a single conditional PUT is. So is every other single file, which S3
takes up to 5 GiB; a larger one has to be written as a dataset.

Neither botocore nor s3fs tries anything again: how long that is done is decided in one place, so
that it has an end. Only aiohttp, below both, sends at once a second time what met a broken
connection, unless it is a POST; nothing turns that off. Where one call takes many requests, each of
them is tried by itself: under a load that refuses every tenth, no sweep or publication would ever
come through as a whole.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar

import pyarrow as pa
from botocore.exceptions import ClientError
from botocore.utils import determine_content_length
from fsspec import AbstractFileSystem

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, VersionConflict
from pamola_dwriter.errors import TargetUnavailableError, UnsupportedDataError
from pamola_dwriter.spec import Tuning, WriteId
from pamola_dwriter.storage import s3_errors
from pamola_dwriter.storage.conditional import ConditionalStore
from pamola_dwriter.storage.patience import Patience
from pamola_dwriter.storage.updates import History, Seen

_STAGED_BY = "pamola-staged-by"
"""User metadata of every part: tells a lost reply from somebody else's object."""

_UPDATES = "pamola-updates"
"""User metadata of what was updated: its :class:`~pamola_dwriter.storage.updates.History`."""

_UNASKED_UP_TO = 16 * 2**20
"""Largest body that is sent with its headers; see :func:`_send_at_once`."""
_UNASKED = "pamola-dwriter-unasked"
"""Name under which :func:`_send_at_once` is registered, once with each client."""

_REQUESTS_AT_ONCE = 16
_UPLOADS_AT_ONCE = 4
_DELETED_AT_ONCE = 1000
_LARGEST_PUT = 5 * 2**30

T = TypeVar("T")
V = TypeVar("V")


class S3Store(ConditionalStore):
    """A task directory in a bucket."""

    def __init__(self, file_system: AbstractFileSystem, root: str, tuning: Tuning) -> None:
        super().__init__(file_system, root, tuning)
        self._fs.retries = 1
        self._patience = Patience(tuning.retry_seconds, self._may_pass)

    @classmethod
    def complete_options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        own = {
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": _REQUESTS_AT_ONCE + _UPLOADS_AT_ONCE,
        }
        config = {**own, **(given.get("config_kwargs") or {})}
        return super().complete_options({**given, "config_kwargs": config})

    def check_writable(self, path: str) -> None:
        """Begin and abort one upload: proves bucket, credentials and permission."""
        probe = layout.join(path.rpartition("/")[0], layout.probe_path(token_hex(8)))
        with self._explained("write", path):
            self._check_bucket()
            try:
                upload = self._call("create_multipart_upload", probe)
                self._abort(probe, upload["UploadId"])
            except BaseException as error:  # also Ctrl-C in between
                if not (isinstance(error, Exception) and self._was_answered(error)):
                    self._abort_all(probe)
                raise

    def _check_bucket(self) -> None:
        # Some servers would make the bucket on the first upload, misspelt as it may be.
        try:
            self._run(self._request("head_bucket", Bucket=self._target("")["Bucket"]))
        except PermissionError:  # whoever may only write objects may not ask this
            return

    def is_file(self, path: str) -> bool:
        with self._explained("look up", path):
            return bool(self._run(self._stands(path)))

    def files_among(self, paths: Collection[str]) -> set[str]:
        with self._explained("look up files in", self._root):
            stand = self._run(_each(self._stands, paths, at_once=_REQUESTS_AT_ONCE))
        return {path for path, stands in zip(paths, stand, strict=True) if stands}

    async def _stands(self, path: str) -> bool:
        try:
            await self._again("head_object", path)
        except FileNotFoundError as error:
            if not self._is_absent(error):
                raise
            return False
        return True

    def listdir(self, path: str) -> list[str]:
        above = len(f"{path}/") if path else 0
        return [found.path[above:] for found in self._objects(path)]

    def survey(self, path: str) -> list[Found]:
        files = self._objects(path)
        with self._explained("list uploads in", path):
            uploads: list[Found] = self._run(self._open_uploads(self._prefix(path)))
        return files + uploads

    def _objects(self, path: str) -> list[Found]:
        with self._explained("list", path):
            found: list[Found] = self._run(self._objects_below(self._prefix(path)))
        return sorted(found, key=lambda each: each.path)

    def discard(self, found: Collection[Found]) -> None:
        super().discard(found)
        with self._explained("abort uploads in", self._root):
            for each in found:
                if each.upload is not None:
                    self._abort(each.path, each.upload)

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        there = {(found.path, found.upload) for found in self.survey(directory)}
        tokens = {path: json.loads(token) for path, token in staged.items()}
        return {
            path
            for path, token in tokens.items()
            if (path, token["upload"]) in there
            or ((path, None) in there and self._run(self._is_published(path, token["mark"])))
        }

    def remove(self, paths: Collection[str]) -> None:
        keys = [self._target(path)["Key"] for path in paths]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            with self._explained("delete", self._root):
                self._delete(some)

    def _withdraw(self, directory: str, write_ids: Collection[WriteId]) -> None:
        with self._explained("abort uploads in", directory):
            for each in self._run(self._open_uploads(self._prefix(directory))):
                if layout.write_id_of(each.path) in write_ids:
                    self._abort(each.path, each.upload)

    def _abort(self, path: str, upload: str | None) -> None:
        with suppress(FileNotFoundError):  # completed or aborted meanwhile
            self._run(self._again("abort_multipart_upload", path, UploadId=upload))

    def _abort_all(self, path: str) -> None:
        """Abort what was begun under this very path, and the reply to it lost, if that works."""
        with suppress(Exception):
            for each in self._run(self._open_uploads(self._target(path)["Key"])):
                if each.path == path:
                    self._call("abort_multipart_upload", path, UploadId=each.upload)

    def _delete(self, keys: list[dict[str, str]]) -> None:
        reply = self._run(self._again("delete_objects", Delete={"Objects": keys, "Quiet": True}))
        if left := [e for e in reply.get("Errors", ()) if e.get("Code") != "NoSuchKey"]:
            raise ClientError({"Error": left[0]}, "DeleteObjects")

    def _was_answered(self, error: Exception) -> bool:
        return s3_errors.was_answered(error)

    def _remedy(self, error: Exception) -> str:
        return s3_errors.remedy(error)

    def _is_absent(self, error: Exception) -> bool:
        return super()._is_absent(error) and s3_errors.code(error) != "NoSuchBucket"

    def _is_transient(self, error: BaseException) -> bool:
        return s3_errors.is_transient(error)

    def _write(self, path: str, data: bytes) -> None:
        self._call("put_object", path, Body=data)

    def _put_on_condition(
        self, path: str, data: bytes, expected: str | None, history: History | None = None
    ) -> None:
        arguments: dict[str, Any] = (
            {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        )
        if history is not None:
            arguments["Metadata"] = {_UPDATES: history.dump()}
        with self._explained("write", path):
            try:
                self._call("put_object", path, Body=data, **arguments)
            except Exception as error:
                # An If-Match on an object that is gone is a 404: somebody removed it.
                gone = expected is not None and s3_errors.code(error) in ("NoSuchKey", "404")
                if gone or s3_errors.status(error) == 412:
                    raise VersionConflict(path) from error
                raise

    def _stage_file(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        if data.size > _LARGEST_PUT:
            raise UnsupportedDataError(
                f"{path!r} would have {data.size} bytes, and S3 takes {_LARGEST_PUT} at most in "
                "one file; pass single_file=False and several partitions to write a dataset"
            )
        return super()._stage_file(path, data, write_id)

    def _stage_part(self, path: str, data: pa.Buffer) -> str:
        return json.dumps(self._run(self._upload(path, data)))

    def _publish_parts(self, staged: Mapping[str, str]) -> None:
        self._run(self._complete_all({path: json.loads(token) for path, token in staged.items()}))

    async def _upload(self, path: str, data: pa.Buffer) -> dict[str, Any]:
        mark = token_hex(8)
        created = await self._again("create_multipart_upload", path, Metadata={_STAGED_BY: mark})
        upload = {"UploadId": created["UploadId"]}
        step = max(self._tuning.upload_part_size, -(-data.size // 10_000))

        async def send(start: int) -> str:
            body = data.slice(start, min(step, data.size - start)).to_pybytes()
            number = start // step + 1
            sent = await self._again("upload_part", path, PartNumber=number, Body=body, **upload)
            return str(sent["ETag"])

        try:
            etags = await _each(send, range(0, max(data.size, 1), step), at_once=_UPLOADS_AT_ONCE)
        except BaseException:
            with suppress(Exception):
                await self._request("abort_multipart_upload", **self._target(path), **upload)
            raise
        return {"upload": created["UploadId"], "etags": etags, "mark": mark}

    async def _complete_all(self, staged: Mapping[str, dict[str, Any]]) -> None:
        async def one(item: tuple[str, dict[str, Any]]) -> None:
            await self._patience.call_async(partial(self._complete, *item))

        await _each(one, staged.items(), at_once=_REQUESTS_AT_ONCE)

    async def _complete(self, path: str, token: dict[str, Any]) -> None:
        parts = [{"PartNumber": n, "ETag": e} for n, e in enumerate(token["etags"], start=1)]
        try:
            await self._request(
                "complete_multipart_upload",
                UploadId=token["upload"],
                MultipartUpload={"Parts": parts},
                **self._target(path),
            )
        except Exception as error:
            if not await self._is_published(path, token["mark"]):
                raise self._unavailable("publish", path, error) from error

    async def _is_published(self, path: str, mark: str) -> bool:
        """Return whether an earlier completion went through and only its reply was lost."""
        with self._explained("look up", path):
            try:
                head = await self._again("head_object", path)
            except FileNotFoundError:
                return False
        return s3_errors.metadata(head).get(_STAGED_BY) == mark

    async def _get(self, path: str) -> Seen:
        reply = await self._request("get_object", **self._target(path))
        async with reply["Body"] as body:
            data = await body.read()
        return Seen(data, reply["ETag"], History.parse(s3_errors.metadata(reply).get(_UPDATES)))

    async def _objects_below(self, prefix: str) -> list[Found]:
        bucket = self._target("")["Bucket"]
        marker: dict[str, str] = {}
        found: list[Found] = []
        while True:
            page = await self._again("list_objects_v2", Prefix=prefix, **marker)
            found += [
                Found(
                    path=self._relative(f"{bucket}/{each['Key']}"),
                    modified=each["LastModified"].timestamp(),
                )
                for each in page.get("Contents", ())
                if each["Key"] != prefix
            ]
            if not page.get("IsTruncated"):
                return found
            token = page.get("NextContinuationToken")
            if token in (None, marker.get("ContinuationToken")):
                raise OSError("the server cut the list short, and does not go on with it")
            marker = {"ContinuationToken": token}

    async def _open_uploads(self, prefix: str) -> list[Found]:
        """Return every upload that is not completed, of all keys that begin with `prefix`.

        MinIO answers for one exact key alone, so there this finds none: what a failed write had
        staged stays until the server removes it, by itself after a day.
        """
        marker: dict[str, str] = {}
        found: dict[tuple[str, str], Found] = {}
        while True:
            page = await self._again("list_multipart_uploads", Prefix=prefix, **marker)
            known = len(found)
            found |= {
                (each["Key"], each["UploadId"]): self._upload_found(each)
                for each in page.get("Uploads", ())
            }
            if not page.get("IsTruncated") or len(found) == known:
                return list(found.values())
            # Not every server gives both.
            names = ("KeyMarker", "UploadIdMarker")
            marker = {name: page[f"Next{name}"] for name in names if page.get(f"Next{name}")}

    def _upload_found(self, listed: Mapping[str, Any]) -> Found:
        return Found(
            path=self._relative(f"{self._target('')['Bucket']}/{listed['Key']}"),
            modified=listed["Initiated"].timestamp(),
            upload=listed["UploadId"],
        )

    def _target(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(self._full(path))
        return {"Bucket": bucket, "Key": key}

    def _prefix(self, directory: str) -> str:
        key = self._target(directory)["Key"]
        return f"{key}/" if key else ""

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._run(self._request(method, **self._target(path), **arguments))

    async def _again(self, method: str, path: str = "", **arguments: Any) -> Any:
        """Send a request, which may be sent twice, until it is answered for good."""
        target = self._target(path) if path else {"Bucket": self._target("")["Bucket"]}
        return await self._patience.call_async(
            partial(self._request, method, **target, **arguments)
        )

    async def _request(self, method: str, **arguments: Any) -> Any:
        await self._fs.set_session()
        client = await self._fs.get_s3(arguments["Bucket"])
        client.meta.events.register_last("before-call.s3", _send_at_once, unique_id=_UNASKED)
        return await self._fs._call_s3(method, **arguments)

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, TargetUnavailableError):
            return error.transient
        return self._is_transient(error)


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Let a body follow its headers: botocore would ask first, which takes a round trip more.

    It does ask for a large one, of which a server that refuses it need not take much.
    """
    if (determine_content_length(params.get("body")) or 0) <= _UNASKED_UP_TO:
        params["headers"].pop("Expect", None)


async def _each(act: Callable[[T], Awaitable[V]], items: Iterable[T], *, at_once: int) -> list[V]:
    """Return what `act` returns for each item, so many of them `at_once`.

    After a failure none is begun any more, and it is raised when those under way have ended:
    what goes on behind the back of whoever cleans up would come after that.
    """
    waiting = enumerate(items)
    done: dict[int, V] = {}
    failures: list[Exception] = []

    async def work() -> None:
        for number, item in waiting:
            try:
                done[number] = await act(item)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
            if failures:
                return

    await asyncio.gather(*(work() for _ in range(at_once)))
    if failures:
        raise failures[0]
    return [done[number] for number in sorted(done)]
