"""Configuration, read once: ``pamola-dwriter.*`` of ``dask.config`` as one frozen value."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, fields
from pathlib import Path

import dask
import yaml
from dask.utils import parse_bytes, parse_timedelta

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.spec import Tuning

DEFAULTS = Path(__file__).with_name("pamola_dwriter.yaml")
SECTION = "pamola-dwriter"

FUSED_FROM = 1000
"""Partitions from which on the scheduler's time for each task counts for more than three bars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set in ``~/.config/dask/*.yaml``, ``DASK_PAMOLA_DWRITER__*`` or ``dask.config``.

    Attributes
    ----------
    fuse_stages : bool or None
        One task per partition, from its input to its parts on the store. Otherwise one computes
        and serializes it, and encrypt and put stand apart. None: one from :data:`FUSED_FROM`
        partitions on.
    gather_width : int
        Partitions whose records one task gathers; where there are more, one task publishes so many.
    upload_part_size : int
        Bytes in one request of a multipart upload (S3 wants at least 5 MiB).
    bytes_in_flight : int
        Bytes that one worker process may be storing at the same time while it computes other
        partitions; one part may always be, whatever its size. 0: a partition is stored before
        the next is computed.
    inline_parts : int
        Parts listed in the manifest itself; past that they go to a Parquet file beside it.
    task_retries : int
        Times that Dask runs a task again which stores something and failed.
    retry_seconds : float
        How long a request to the store is tried again that failed for a passing reason.
    lease_seconds : float
        How long after its last sign of life a write still counts as under way: no other resumes
        it, and no garbage collection touches it.
    retain_seconds : float
        How long the parts of a version stay after another replaced it, for reads that go on.
    audit : bool
        Leave a record of each committed write in ``logs/_audit`` of the task directory.
    actor : str or None
        Who writes, as such a record says; by default user and host of the client's process.
    allow_insecure_transport : bool
        Let a dataset key travel over plain TCP to other hosts, where the workers cannot resolve
        a key themselves: whoever listens can then read what is written.
    """

    fuse_stages: bool | None
    gather_width: int
    upload_part_size: int
    bytes_in_flight: int
    inline_parts: int
    task_retries: int
    retry_seconds: float
    lease_seconds: float
    retain_seconds: float
    audit: bool
    actor: str | None
    allow_insecure_transport: bool

    @property
    def tuning(self) -> Tuning:
        """Those that the tasks of a write and the stores go by."""
        return Tuning(
            upload_part_size=self.upload_part_size,
            bytes_in_flight=self.bytes_in_flight,
            inline_parts=self.inline_parts,
            retry_seconds=self.retry_seconds,
            lease_seconds=self.lease_seconds,
            retain_seconds=self.retain_seconds,
            audit=self.audit,
            actor=_this_user() if self.actor is None else self.actor,
        )

    def fuses(self, partitions: int) -> bool:
        """Return whether each of so many partitions is one task."""
        return partitions >= FUSED_FROM if self.fuse_stages is None else self.fuse_stages

    @classmethod
    def load(cls) -> Settings:
        """Read the configuration in force.

        Raises
        ------
        InvalidWriteError
            A value has the wrong type or is out of range.
        """
        try:
            # One by one: an environment variable leaves underscores in the names of a section.
            values = {name: dask.config.get(f"{SECTION}.{name}") for name in names()}
            settings = cls(
                fuse_stages=_truth_or_auto(values["fuse-stages"]),
                gather_width=int(values["gather-width"]),
                upload_part_size=parse_bytes(values["upload-part-size"]),
                bytes_in_flight=parse_bytes(values["bytes-in-flight"]),
                inline_parts=int(values["inline-parts"]),
                task_retries=int(values["task-retries"]),
                retry_seconds=parse_timedelta(values["retry-seconds"]),
                lease_seconds=parse_timedelta(values["lease-seconds"]),
                retain_seconds=parse_timedelta(values["retain-seconds"]),
                audit=_truth(values["audit"]),
                actor=_text(values["actor"]),
                allow_insecure_transport=_truth(values["allow-insecure-transport"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidWriteError(f"configuration {SECTION}: {error}") from None
        if settings.gather_width < 2 or settings.upload_part_size < 5 * 2**20:
            raise InvalidWriteError(
                f"configuration {SECTION}: gather-width must be at least 2 and "
                "upload-part-size at least 5 MiB"
            )
        lengths = (settings.retry_seconds, settings.lease_seconds, settings.retain_seconds)
        if min(settings.task_retries, settings.bytes_in_flight, *lengths) < 0:
            raise InvalidWriteError(
                f"configuration {SECTION}: task-retries, bytes-in-flight, retry-seconds, "
                "lease-seconds and retain-seconds must not be negative"
            )
        return settings


def _truth(value: object) -> bool:
    """Return a boolean; a text such as ``no`` would else count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} must be true or false")  # noqa: TRY004  # as parse_bytes does
    return value


def _truth_or_auto(value: object) -> bool | None:
    return None if value == "auto" else _truth(value)


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} must be a text")  # as parse_bytes does
    return value


def _this_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def defaults() -> dict[str, object]:
    """Return the shipped defaults, as in ``pamola_dwriter.yaml``."""
    loaded: dict[str, object] = yaml.safe_load(DEFAULTS.read_text())
    return loaded


def names() -> set[str]:
    """Return the configuration keys that :class:`Settings` reads."""
    return {field.name.replace("_", "-") for field in fields(Settings)}


dask.config.update_defaults(defaults())
