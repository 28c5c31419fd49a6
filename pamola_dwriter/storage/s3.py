"""S3 and servers that speak its protocol, through s3fs.

A part is a multipart upload to its final key that is left incomplete: it is durable, and
invisible, until publishing completes it. The manifest is one conditional PUT
(``If-None-Match`` or ``If-Match``): the completion of a multipart upload is not an atomic
create on every server, a single conditional PUT is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

import pyarrow as pa
from fsspec.asyn import sync

from pamola_dwriter import layout
from pamola_dwriter.contracts import VersionConflict, Versioned
from pamola_dwriter.spec import WriteId
from pamola_dwriter.storage.objects import ObjectStore

_STAGED_BY = "pamola-staged-by"
"""User metadata of every part: tells a lost reply from somebody else's object."""

_REQUESTS_AT_ONCE = 16
_UPLOADS_AT_ONCE = 4
_CONFLICTS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


class S3Store(ObjectStore):
    """A task directory in a bucket."""

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
        with self._explained("read", path):
            try:
                found: Versioned = self._run(self._get(path))
            except FileNotFoundError:
                return None
        return found

    def put(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            self._call("put_object", path, Body=data)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        with self._explained("write", path):
            try:
                self._call("put_object", path, Body=data, **condition)
            except Exception as error:
                # An If-Match on an object that is gone is a 404: somebody removed it.
                if _error_code(error) in _CONFLICTS or isinstance(error, FileNotFoundError):
                    raise VersionConflict(path) from error
                raise

    def sweep_staged(self, directory: str, write_id: WriteId) -> None:
        super().sweep_staged(directory, write_id)
        with self._explained("abort uploads in", directory):
            for key, upload_id in self._run(self._open_uploads(directory)):
                if layout.write_id_of(key) == write_id:
                    self._abort(key, upload_id)

    def _abort(self, key: str, upload_id: str) -> None:
        bucket = self._target("")["Bucket"]
        with suppress(FileNotFoundError):  # completed or aborted meanwhile
            self._run(
                self._fs._call_s3(
                    "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id
                )
            )

    def _was_answered(self, error: Exception) -> bool:
        reply = _reply(error)
        status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(400 <= status < 500)

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
        step = max(self._upload_part_size, -(-data.size // 10_000))

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
        try:
            head = await self._fs._call_s3("head_object", **self._target(path))
        except FileNotFoundError:
            return False
        return bool(head.get("Metadata", {}).get(_STAGED_BY) == mark)

    async def _get(self, path: str) -> Versioned:
        reply = await self._fs._call_s3("get_object", **self._target(path))
        async with reply["Body"] as body:
            return Versioned(await body.read(), reply["ETag"])

    async def _open_uploads(self, directory: str) -> list[tuple[str, str]]:
        target = self._target(directory)
        marker: dict[str, str] = {}
        found: list[tuple[str, str]] = []
        while True:
            page = await self._fs._call_s3(
                "list_multipart_uploads",
                Bucket=target["Bucket"],
                Prefix=target["Key"] + "/",
                **marker,
            )
            found += [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", ())]
            if not page.get("IsTruncated"):
                return found
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

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
