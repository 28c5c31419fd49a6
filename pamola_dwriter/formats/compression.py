"""The options that formats share, and the gzip or zstd around a whole CSV or JSON Lines file.

The other formats compress inside. Both streams are pyarrow's own, so any other program opens the
files: ``pandas.read_csv`` and ``dask.dataframe.read_csv`` with ``compression="gzip"`` or
``"zstd"``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow as pa

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.spec import FormatSpec

SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_UNCOMPRESSED = {"none", "uncompressed"}


def codec_name(compression: str | None, default: str, known: Collection[str]) -> str:
    """Return the codec asked for; ``None`` is the format's default, ``"none"`` is none.

    Raises
    ------
    InvalidWriteError
        This format, or this build of pyarrow, has no such codec.
    """
    name = default if compression is None else str(compression).lower()
    if name in _UNCOMPRESSED:
        return "none"
    if name not in known:
        raise InvalidWriteError(f"compression must be one of {sorted(known)}, not {compression!r}")
    # Only ORC has zlib, and brings its own.
    if name != "zlib" and not pa.Codec.is_available(name):
        raise InvalidWriteError(f"this build of pyarrow has no {name}; choose another compression")
    return name


def check_spec(
    spec: FormatSpec, options: Collection[str], default: str, codecs: Collection[str]
) -> FormatSpec:
    """Return `spec` with its codec filled in, or refuse what its format does not have."""
    if spec.row_group_size is not None:
        raise InvalidWriteError(f"row_group_size is an option of parquet, not of {spec.name}")
    check_option_names(spec, options)
    return replace(spec, compression=codec_name(spec.compression, default, codecs))


def check_option_names(spec: FormatSpec, allowed: Collection[str]) -> None:
    """Raise InvalidWriteError, naming those allowed, if `spec` has any other option."""
    unknown = sorted(set(spec.options) - set(allowed))
    if unknown:
        known = f"it takes {sorted(allowed)}" if allowed else "it takes none"
        raise InvalidWriteError(f"{spec.name} has no option {unknown}; {known}")


def suffix(spec: FormatSpec) -> str:
    """Return what the compression of `spec` adds to a file name, with its dot."""
    return SUFFIXES[codec_name(spec.compression, "none", SUFFIXES)]


def compressed(spec: FormatSpec, write: Callable[[Any], None]) -> pa.Buffer:
    """Return what `write` writes to the stream it is given, compressed as `spec` says."""
    sink = pa.BufferOutputStream()
    codec = codec_name(spec.compression, "none", SUFFIXES)
    if codec == "none":
        write(sink)
    else:
        with pa.CompressedOutputStream(sink, codec) as stream:
            write(stream)
    return sink.getvalue()


def decompressed(file: BinaryIO, spec: FormatSpec) -> pa.Buffer:
    """Return the whole of `file`, decompressed."""
    data = pa.py_buffer(file.read())
    codec = codec_name(spec.compression, "none", SUFFIXES)
    if codec == "none" or data.size == 0:
        return data
    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        return stream.read_buffer()
