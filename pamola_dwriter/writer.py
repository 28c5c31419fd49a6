"""The writer: what callers use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack, overload

import dask.dataframe as dd
import pandas as pd
from distributed import Client

from pamola_dwriter import storage
from pamola_dwriter.cluster import current_client
from pamola_dwriter.execution import LazyWrite, WriteFuture
from pamola_dwriter.graph import compile_write
from pamola_dwriter.paths import PathLike, resolve_path
from pamola_dwriter.prepare import Place, bind
from pamola_dwriter.request import WriteOptions, check_flag, check_request
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, WriterResult

Frame = pd.DataFrame | dd.DataFrame


class DataWriter:
    """Writes what an operation produces into one task directory.

    Parameters
    ----------
    task_dir : str, pathlib.Path or upath.UPath
        Local directory, or URL of any fsspec file system (``s3://bucket/task_042``). On a
        cluster every worker must reach it under this name.
    storage_options : mapping, optional
        Passed to the fsspec file system: credentials, endpoint.
    encryption_key : optional
        Default for every write; see :meth:`write_dataframe`.
    client : distributed.Client, optional
        Cluster to write with. Default: the current client, else Dask's threaded scheduler.

    Raises
    ------
    InvalidPathError
        `task_dir` or `storage_options` is unusable.

    Examples
    --------
    >>> import pandas as pd
    >>> writer = DataWriter("memory://docs/task_001")
    >>> result = writer.write_dataframe(pd.DataFrame({"x": [1, 2]}), "numbers", format="parquet")
    >>> result.rows
    2
    """

    def __init__(
        self,
        task_dir: PathLike,
        *,
        storage_options: Mapping[str, Any] | None = None,
        encryption_key: Any = None,
        client: Client | None = None,
    ) -> None:
        root, options = resolve_path(task_dir, storage_options)
        settings = Settings.load()
        self._place = Place(
            root=root,
            storage_options=options,
            store=storage.open_store(root, options, settings.upload_part_size),
        )
        self._encryption_key = Redacted(encryption_key)
        self._client = client

    def __repr__(self) -> str:
        return f"<DataWriter {self._place.root}>"

    @property
    def task_dir(self) -> str:
        """Absolute path or URL of the task directory."""
        return self._place.root

    @overload
    def write_dataframe(
        self,
        df: Frame,
        name: str,
        format: str = ...,
        subdir: str | None = ...,
        timestamp_in_name: bool = ...,
        encryption_key: Any = ...,
        overwrite: bool = ...,
        *,
        compute: Literal[True] = ...,
        **options: Unpack[WriteOptions],
    ) -> WriterResult: ...

    @overload
    def write_dataframe(
        self,
        df: Frame,
        name: str,
        format: str = ...,
        subdir: str | None = ...,
        timestamp_in_name: bool = ...,
        encryption_key: Any = ...,
        overwrite: bool = ...,
        *,
        compute: Literal[False],
        **options: Unpack[WriteOptions],
    ) -> LazyWrite: ...

    def write_dataframe(  # noqa: PLR0913 - the specified signature
        self,
        df: Frame,
        name: str,
        format: str = "csv",  # noqa: A002 - the specified name
        subdir: str | None = "output",
        timestamp_in_name: bool = False,
        encryption_key: Any = None,
        overwrite: bool = True,
        *,
        compute: bool = True,
        **options: Unpack[WriteOptions],
    ) -> WriterResult | LazyWrite:
        """Write a frame; it is committed whole when this returns, or not at all.

        Parameters
        ----------
        df : pandas.DataFrame or dask.dataframe.DataFrame
            What to write. Nothing of a Dask frame passes through the client.
        name : str
            Base name of the file or dataset directory.
        format : str, default "csv"
            ``parquet``, ``csv`` or ``jsonl``.
        subdir : str or None, default "output"
            Folder below the task directory; None for the task directory itself.
        timestamp_in_name : bool, default False
            Append ``_YYYYMMDD_HHMMSS`` in UTC.
        encryption_key : str, bytes or key provider, or a list of these, optional
            Passphrase, 32 raw bytes, ``env:NAME`` or ``file:PATH``; any one of a list opens
            what was written. None: the writer's default.
        overwrite : bool, default True
            Replace what stands there, once the new version is committed. False: refuse
            before any work.
        compute : bool, default True
            False returns a lazy write and touches nothing.
        **options
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
            A partition does not fit the schema; names partition and column.
        ConcurrentWriteError
            Another writer committed this dataset first.
        WriteFailedError
            Computing a partition failed; the cause is chained.
        CommitOutcomeUnknownError
            The store did not say whether the write was committed.
        """
        check_flag("compute", compute)
        request = check_request(
            name,
            format,
            subdir,
            options,
            timestamp_in_name=timestamp_in_name,
            overwrite=overwrite,
        )
        settings = Settings.load()
        client = current_client(self._client)
        key = self._encryption_key.reveal() if encryption_key is None else encryption_key
        source, run = bind(self._place, request, df, key, client, settings)
        graph, final = compile_write(source, run, settings)
        lazy = LazyWrite(graph, final, run, client)
        return lazy.compute() if compute else lazy

    def submit_dataframe(self, df: Frame, name: str, *args: Any, **kwargs: Any) -> WriteFuture:
        """Start :meth:`write_dataframe`, with the same arguments, and return at once.

        Returns
        -------
        WriteFuture
            With ``result()``, ``done()``, ``cancel()`` and ``progress()``.
        """
        return self.write_dataframe(df, name, *args, compute=False, **kwargs).submit()
