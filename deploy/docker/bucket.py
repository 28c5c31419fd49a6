"""``python -m deploy.docker.bucket NAME``: make a bucket that is not there yet.

Endpoint, credentials and CA come as usual with AWS, from the environment and the files it names.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

WAIT_SECONDS = 60.0
"""Longest wait for the store, which may be up before it can place data."""

_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def make_bucket(name: str) -> None:
    """Make the bucket; what the store says last is raised if it does not within the wait."""
    client: Any = botocore.session.Session().create_client("s3")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] in _THERE:
                return
            if time.monotonic() > deadline:
                raise
        except BotoCoreError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.5)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m deploy.docker.bucket NAME")
    make_bucket(sys.argv[1])
