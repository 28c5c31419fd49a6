"""S3 and servers that speak its protocol, through s3fs.

A part is a multipart upload to its final key that is left incomplete: it is durable, and
invisible, until publishing completes it. The manifest is one conditional PUT
(``If-None-Match`` or ``If-Match``): the completion of a multipart upload is not an atomic
create on every server, a single conditional PUT is. So is every other single file, which S3
takes up to 5 GiB; a larger one has to be written as a dataset.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any

import pyarrow as pa
from fsspec.asyn import sync

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, VersionConflict, Versioned
from pamola_dwriter.errors import TargetUnavailableError, UnsupportedDataError
from pamola_dwriter.spec import WriteId
from pamola_dwriter.storage import updates
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.updates import History, Seen

_STAGED_BY = "pamola-staged-by"
"""User metadata of every part: tells a lost reply from somebody else's object."""

_UPDATES = "pamola-updates"
"""User metadata of what was updated: its :class:`~pamola_dwriter.storage.updates.History`."""

_REQUESTS_AT_ONCE = 16
_UPLOADS_AT_ONCE = 4
_DELETED_AT_ONCE = 1000
_LARGEST_PUT = 5 * 2**30
_TRIES = 4
"""Times that a conditional PUT is sent while the store does not say what became of it."""


class S3Store(ObjectStore):
    """A task directory in a bucket."""

    @property
    def atomic(self) -> bool:
        return True

    def check_writable(self, path: str) -> None:
        """Begin and abort one upload: proves bucket, credentials and permission."""
        with self._explained("write", path):
            try:
                self._check_bucket()
                upload = self._call("create_multipart_upload", path)
                self._call("abort_multipart_upload", path, UploadId=upload["UploadId"])
            except FileNotFoundError as error:
                raise self._unavailable("write", path, error) from error

    def _check_bucket(self) -> None:
        # Some servers would make the bucket on the first upload, misspelt as it may be.
        try:
            self._run(self._fs._call_s3("head_bucket", Bucket=self._target("")["Bucket"]))
        except PermissionError:  # whoever may only write objects may not ask this
            return

    def read_versioned(self, path: str) -> Versioned | None:
        seen = self._see(path)
        if seen.data is None or seen.version is None:
            return None
        return Versioned(seen.data, seen.version)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        for tried in range(_TRIES):
            try:
                self._put_on_condition(path, data, expected)
            except TargetUnavailableError as error:
                if error.answered or tried == _TRIES - 1:
                    raise
                updates.pause(tried)
                if self._stands(path, data, expected, error):
                    return
            else:
                return

    def survey(self, path: str) -> list[Found]:
        files = super().survey(path)
        with self._explained("list uploads in", path):
            uploads: list[Found] = self._run(self._open_uploads(path))
        return files + uploads

    def discard(self, found: Collection[Found]) -> None:
        super().discard(found)
        with self._explained("abort uploads in", self._root):
            for each in found:
                if each.upload is not None:
                    self._abort(each)

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

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        super().sweep(directory, write_ids, keep)
        with self._explained("abort uploads in", directory):
            for each in self._run(self._open_uploads(directory)):
                if layout.write_id_of(each.path) in write_ids:
                    self._abort(each)

    def _abort(self, upload: Found) -> None:
        with suppress(FileNotFoundError):  # completed or aborted meanwhile
            self._call("abort_multipart_upload", upload.path, UploadId=upload.upload)

    def _delete(self, keys: list[dict[str, str]]) -> None:
        bucket = self._target("")["Bucket"]
        reply = self._run(
            self._fs._call_s3(
                "delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True}
            )
        )
        if left := [e for e in reply.get("Errors", ()) if e.get("Code") != "NoSuchKey"]:
            raise OSError(f"{len(left)} files are left: {left[0].get('Message')}")

    def _was_answered(self, error: Exception) -> bool:
        # 409 asks to try again: another request met this one.
        return 400 <= _status(error) < 500 and _status(error) != 409

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
                gone = expected is not None and _error_code(error) in ("NoSuchKey", "404")
                if gone or _status(error) == 412:
                    raise VersionConflict(path) from error
                raise

    def _stands(
        self, path: str, data: bytes, expected: str | None, failure: TargetUnavailableError
    ) -> bool:
        """Return whether our bytes stand, or False if it may be tried again."""
        try:
            present = self.read_versioned(path)
        except TargetUnavailableError:
            raise failure from None
        if present is not None and present.data == data:
            return True
        if (present.version if present else None) != expected:
            raise VersionConflict(path)
        return False

    def _update(self, path: str, change: updates.Change) -> bytes:
        target = updates.Target(
            name=repr(path),
            read=partial(self._see, path),
            write=partial(self._put_on_condition, path),
        )
        return updates.update(target, change)

    def _see(self, path: str) -> Seen:
        with self._explained("read", path):
            try:
                found: Seen = self._run(self._get(path))
            except FileNotFoundError:
                return Seen()
        return found

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
        target = self._target(path)
        created = await self._fs._call_s3(
            "create_multipart_upload", Metadata={_STAGED_BY: mark}, **target
        )
        upload = {**target, "UploadId": created["UploadId"]}
        slots = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        step = max(self._tuning.upload_part_size, -(-data.size // 10_000))

        async def send(number: int, start: int) -> str:
            async with slots:
                body = data.slice(start, min(step, data.size - start)).to_pybytes()
                sent = await self._fs._call_s3(
                    "upload_part", PartNumber=number, Body=body, **upload
                )
                return str(sent["ETag"])

        starts = range(0, max(data.size, 1), step)
        try:
            etags = await asyncio.gather(*(send(n, s) for n, s in enumerate(starts, start=1)))
        except BaseException:
            with suppress(Exception):
                await self._fs._call_s3("abort_multipart_upload", **upload)
            raise
        return {"upload": created["UploadId"], "etags": etags, "mark": mark}

    async def _complete_all(self, staged: Mapping[str, dict[str, Any]]) -> None:
        slots = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def one(path: str, token: dict[str, Any]) -> None:
            async with slots:
                await self._complete(path, token)

        await asyncio.gather(*(one(path, token) for path, token in staged.items()))

    async def _complete(self, path: str, token: dict[str, Any]) -> None:
        parts = [{"PartNumber": n, "ETag": e} for n, e in enumerate(token["etags"], start=1)]
        try:
            await self._fs._call_s3(
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
                head = await self._fs._call_s3("head_object", **self._target(path))
            except FileNotFoundError:
                return False
        return _metadata(head).get(_STAGED_BY) == mark

    async def _get(self, path: str) -> Seen:
        reply = await self._fs._call_s3("get_object", **self._target(path))
        async with reply["Body"] as body:
            data = await body.read()
        return Seen(data, reply["ETag"], History.parse(_metadata(reply).get(_UPDATES)))

    async def _open_uploads(self, directory: str) -> list[Found]:
        """Return every upload below `directory` that is not completed.

        MinIO answers for one exact key alone, so there this finds none: what a failed write had
        staged stays until the server removes it, by itself after a day.
        """
        target = self._target(directory)
        marker: dict[str, str] = {}
        found: dict[tuple[str, str], Found] = {}
        while True:
            page = await self._fs._call_s3(
                "list_multipart_uploads",
                Bucket=target["Bucket"],
                Prefix=target["Key"] + "/",
                **marker,
            )
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

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._run(self._fs._call_s3(method, **self._target(path), **arguments))

    def _run(self, coroutine: Any) -> Any:
        return sync(self._fs.loop, lambda: coroutine)


def _reply(error: BaseException | None) -> dict[str, Any]:
    """Return S3's own reply behind an exception that s3fs may have translated."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__
    return {}


def _error_code(error: BaseException) -> str:
    return str(_reply(error).get("Error", {}).get("Code"))


def _status(error: BaseException) -> int:
    return int(_reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _metadata(reply: Mapping[str, Any]) -> dict[str, str]:
    """Return user metadata by lower-case name: some servers give it capitals."""
    return {name.lower(): value for name, value in reply.get("Metadata", {}).items()}
