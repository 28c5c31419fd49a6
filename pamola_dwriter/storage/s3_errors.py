"""What S3 said, behind an exception that botocore raised and s3fs may have translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pamola_dwriter.storage import failures

_PASSING = frozenset(
    {
        *("ConditionalRequestConflict", "OperationAborted"),  # another request met this one
        *("BandwidthLimitExceeded", "RequestLimitExceeded", "RequestThrottled", "SlowDown"),
        *("Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException"),
        *("InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable"),
        *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),  # damaged on the way
    }
)

_REMEDIES = {
    "EntityTooLarge": "cut the data into more partitions",
    "InvalidAccessKeyId": "give credentials that are valid there",
    "NoSuchBucket": "make the bucket, or correct its name in the path",
    "NoSuchUpload": "somebody has removed what was staged, or the bucket with it; write again",
    "QuotaExceeded": "free some of the quota or have it raised",
    "SignatureDoesNotMatch": "give credentials that are valid there",
    "XMinioStorageFull": "free some space there or write to another place",
}

_NOT_SENT = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError"})


def code(error: BaseException) -> str:
    """Return S3's code of an error, or an empty text."""
    return str(_reply(error).get("Error", {}).get("Code", ""))


def status(error: BaseException) -> int | None:
    """Return the HTTP status of S3's reply, or None if there was none."""
    found = _reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None if found is None else int(found)


def was_answered(error: BaseException) -> bool:
    """Return whether S3 refused, or nothing was sent at all, so that nothing was changed."""
    answer = status(error)
    if answer is None:
        return type(error).__name__ in _NOT_SENT
    # 409 asks to try again: another request met this one.
    return 400 <= answer < 500 and answer != 409


def is_transient(error: BaseException) -> bool:
    """Return whether it may go better when it is tried again."""
    if code(error) in _PASSING:
        return True
    answer = status(error)
    return failures.is_transient(error) if answer is None else failures.status_is_transient(answer)


def remedy(error: BaseException) -> str:
    """Return what a person can do about it, to be put behind a message, or an empty text."""
    found = _REMEDIES.get(code(error))
    return failures.remedy(error) if found is None else f"; {found}"


def metadata(reply: Mapping[str, Any]) -> dict[str, str]:
    """Return user metadata by lower-case name: some servers give it capitals."""
    return {name.lower(): value for name, value in reply.get("Metadata", {}).items()}


def _reply(error: BaseException | None) -> dict[str, Any]:
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__
    return {}
