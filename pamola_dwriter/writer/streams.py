"""Writing what is still being made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import pandas as pd

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.prepare import bind
from pamola_dwriter.request import (
    STREAM_OPTIONS,
    StreamOptions,
    check_pace,
    check_request,
)
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec
from pamola_dwriter.streaming import WriteStream
from pamola_dwriter.subtask import WriteSubtask
from pamola_dwriter.writer.base import WriterBase
from pamola_dwriter.writer.datasets import ACTION, DATASET_PARAMETERS

_NOT_IN_STREAMS = frozenset({"single_file", "target_part_size", "compute", "resume", "encryption"})


class StreamWrites(WriterBase):
    """Writes data that is still being made, from this process."""

    def open_stream(
        self,
        name: str,
        format: str = "parquet",  # noqa: A002 - as in write_dataframe
        subdir: str | None = "output",
        *,
        timestamp_in_name: bool = False,
        encryption_key: Any = None,
        overwrite: bool = True,
        **kwargs: Unpack[StreamOptions],
    ) -> WriteStream:
        """Open a dataset for data that is still being made; nothing is written yet.

        Parameters
        ----------
        name, format, subdir, timestamp_in_name, encryption_key, overwrite
            As in :meth:`write_dataframe`.
        **kwargs
            See :class:`~pamola_dwriter.request.StreamOptions`.

        Returns
        -------
        WriteStream
            A context manager with ``write(batch)`` and ``commit()``.

        Examples
        --------
        >>> import pandas as pd
        >>> from pamola_dwriter import DataWriter
        >>> writer = DataWriter("memory://docs/task_002")
        >>> with writer.open_stream("events", part_rows=1000) as stream:
        ...     for day in range(3):
        ...         stream.write(pd.DataFrame({"day": [day], "visits": [day * 10]}))
        >>> stream.result.rows
        3
        """
        with self._reporting(ACTION):
            parameters = DATASET_PARAMETERS | STREAM_OPTIONS
            options: Any = self._take("open_stream", kwargs, parameters, encryption_key)
            if refused := sorted(_NOT_IN_STREAMS & options.keys()):
                raise InvalidWriteError(f"a stream has no {refused[0]}; leave it out")
            pace = check_pace({key: options.pop(key) for key in STREAM_OPTIONS & options.keys()})
            wanted: Any = {**options, "single_file": False}
            request = check_request(
                name,
                format,
                subdir,
                wanted,
                timestamp_in_name=timestamp_in_name,
                overwrite=overwrite,
            )
            providers = self._key(encryption_key)
            request = replace(request, age_recipients=self._age_recipients(providers))

        def begin(frame: pd.DataFrame) -> RunSpec:
            return bind(self._place, request, frame, providers, None, Settings.load()).run

        return WriteStream(
            begin,
            pace,
            request.schema,
            views=self._stream_views(name),
            failed=partial(self._report, ACTION),
        )

    def _stream_views(self, name: str) -> list[WriteSubtask]:
        if self._tracker is None:
            return []
        return [WriteSubtask(self._tracker, f"Streaming {name}", total=None)]
