"""Writing frames: as a dataset of parts, or one file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal, Unpack, overload

from pamola_dwriter.cluster import current_client
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.execution import Audience, LazyWrite, WriteFuture
from pamola_dwriter.graph import compile_write
from pamola_dwriter.prepare import bind
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.request import OPTIONS, WriteOptions, check_flag, check_request
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec, WriteId, WriterResult, WriteSpec
from pamola_dwriter.subtask import WriteSubtask
from pamola_dwriter.writer.base import WriterBase

ACTION = "write DataFrame"

DATASET_PARAMETERS = OPTIONS | {
    *("df", "name", "format", "subdir", "timestamp_in_name"),
    *("encryption_key", "overwrite", "compute"),
}


class DatasetWrites(WriterBase):
    """Writes frames, on the cluster."""

    @overload
    def write_dataframe(
        self,
        df: Any,
        name: str,
        format: str = ...,
        subdir: str | None = ...,
        timestamp_in_name: bool = ...,
        encryption_key: Any = ...,
        overwrite: bool = ...,
        *,
        compute: Literal[True] = ...,
        **kwargs: Unpack[WriteOptions],
    ) -> WriterResult: ...

    @overload
    def write_dataframe(
        self,
        df: Any,
        name: str,
        format: str = ...,
        subdir: str | None = ...,
        timestamp_in_name: bool = ...,
        encryption_key: Any = ...,
        overwrite: bool = ...,
        *,
        compute: Literal[False],
        **kwargs: Unpack[WriteOptions],
    ) -> LazyWrite: ...

    def write_dataframe(  # noqa: PLR0913 - the specified signature
        self,
        df: Any,
        name: str,
        format: str = "csv",  # noqa: A002 - the specified name
        subdir: str | None = "output",
        timestamp_in_name: bool = False,
        encryption_key: Any = None,
        overwrite: bool = True,
        *,
        compute: bool = True,
        **kwargs: Unpack[WriteOptions],
    ) -> WriterResult | LazyWrite:
        """Write a frame; it is committed whole when this returns, or not at all.

        Parameters
        ----------
        df : DataFrame, Series or alike
            Of pandas or Dask; also a Dask bag of dicts, a list of delayed frames, what has
            ``to_dask_dataframe``, and a PyArrow table or Polars frame (in one partition).
            Nothing of a Dask collection passes through the client.
        name : str
            Base name of the file or dataset directory.
        format : str, default "csv"
            ``parquet``, ``csv``, ``jsonl``, ``orc``, ``arrow`` or ``excel``, or one that an
            installed plugin adds.
        subdir : str or None, default "output"
            Folder below the task directory; None for the task directory itself.
        timestamp_in_name : bool, default False
            Append ``_YYYYMMDD_HHMMSS`` in UTC; with microseconds if that is taken.
        encryption_key : str, bytes or key provider, or a list of these, optional
            Passphrase, 32 raw bytes, ``env:NAME`` or ``file:PATH``; any one of a list opens
            what was written. None: the writer's default.
        overwrite : bool, default True
            Replace what stands there, once the new version is committed. False: refuse
            before any work.
        compute : bool, default True
            False returns a lazy write. Nothing is written; the target is looked at, and
            whether it can be written is tried without leaving a trace.
        **kwargs
            See :class:`~pamola_dwriter.request.WriteOptions`.

        Returns
        -------
        WriterResult or LazyWrite

        Raises
        ------
        InvalidWriteError
            The arguments cannot be honoured; raised before any work.
        TargetExistsError, TargetUnavailableError
            The target is taken, or cannot be written; raised before any work where it shows.
        EncryptionKeyError
            The key is malformed or unavailable, or would travel in the clear.
        SchemaMismatchError
            A partition does not fit the schema, or the dataset it is to be appended to.
        InvalidTargetError
            What stands there cannot be appended to; it is kept.
        ConcurrentWriteError
            Another writer committed this dataset first.
        WriteFailedError
            Computing a partition failed; the cause is chained.
        CommitOutcomeUnknownError
            The store did not say whether the write was committed.
        """
        with self._reporting(ACTION):
            check_flag("compute", compute)
            options: Any = self._take("write_dataframe", kwargs, DATASET_PARAMETERS, encryption_key)
            request = check_request(
                name,
                format,
                subdir,
                options,
                timestamp_in_name=timestamp_in_name,
                overwrite=overwrite,
            )
            lazy = self._bind(df, request, self._key(encryption_key), ACTION)
        return lazy.compute() if compute else lazy

    def submit_dataframe(self, df: Any, name: str, *args: Any, **kwargs: Any) -> WriteFuture:
        """Start :meth:`write_dataframe`, with the same arguments, and return at once.

        Returns
        -------
        WriteFuture
            With ``result()``, ``done()``, ``cancel()`` and ``progress()``.
        """
        return self.write_dataframe(df, name, *args, compute=False, **kwargs).submit()

    def progress(self) -> dict[WriteId, Snapshot]:
        """Return how far the DataFrames have come that this writer is writing, oldest first.

        Those that have ended are among them while their ``WriteFuture`` is held.
        """
        return {write_id: write.progress() for write_id, write in list(self._writes.items())}

    def _bind(
        self, df: Any, request: WriteSpec, providers: tuple[KeyProvider, ...], action: str
    ) -> LazyWrite:
        settings = Settings.load()
        client = current_client(self._client)
        request = replace(request, age_recipients=self._age_recipients(providers))
        bound = bind(self._place, request, df, providers, client, settings)
        run = bound.run
        graph, final = compile_write(bound.source, run, settings, bound.kept)
        audience = Audience(
            views=self._views,
            began=self._remember,
            failed=partial(self._report, action),
            logger=self._logger,
        )
        return LazyWrite(graph, final, run, client, audience)

    def _remember(self, write: WriteFuture) -> None:
        self._writes[write.write_id] = write

    def _views(self, run: RunSpec) -> list[WriteSubtask]:
        if self._tracker is None:
            return []
        return [WriteSubtask(self._tracker, f"Writing {run.target.path}", run.partitions)]
