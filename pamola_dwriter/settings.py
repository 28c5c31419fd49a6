"""Configuration, read once: ``pamola-dwriter.*`` of ``dask.config`` as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import dask
import yaml
from dask.utils import parse_bytes

from pamola_dwriter.errors import InvalidWriteError

DEFAULTS = Path(__file__).with_name("pamola_dwriter.yaml")
SECTION = "pamola-dwriter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set in ``~/.config/dask/*.yaml``, ``DASK_PAMOLA_DWRITER__*`` or ``dask.config``.

    Attributes
    ----------
    fuse_stages : bool
        One task per partition instead of serialize, encrypt and put apart.
    gather_width : int
        Records merged by one gather task.
    upload_part_size : int
        Bytes in one request of a multipart upload (S3 wants at least 5 MiB).
    inline_parts : int
        Parts listed in the manifest itself; past that they go to a Parquet file beside it.
    """

    fuse_stages: bool
    gather_width: int
    upload_part_size: int
    inline_parts: int

    @classmethod
    def load(cls) -> Settings:
        """Read the configuration in force.

        Raises
        ------
        InvalidWriteError
            A value has the wrong type or is out of range.
        """
        values = dask.config.get(SECTION)
        try:
            settings = cls(
                fuse_stages=bool(values["fuse-stages"]),
                gather_width=int(values["gather-width"]),
                upload_part_size=parse_bytes(values["upload-part-size"]),
                inline_parts=int(values["inline-parts"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidWriteError(f"configuration {SECTION}: {error}") from None
        if settings.gather_width < 2 or settings.upload_part_size < 5 * 2**20:
            raise InvalidWriteError(
                f"configuration {SECTION}: gather-width must be at least 2 and "
                "upload-part-size at least 5 MiB"
            )
        return settings


def defaults() -> dict[str, object]:
    """Return the shipped defaults, as in ``pamola_dwriter.yaml``."""
    loaded: dict[str, object] = yaml.safe_load(DEFAULTS.read_text())
    return loaded


def names() -> set[str]:
    """Return the configuration keys that :class:`Settings` reads."""
    return {field.name.replace("_", "-") for field in fields(Settings)}


dask.config.update_defaults(defaults())
