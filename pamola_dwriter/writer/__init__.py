"""The writer: what callers use.

One class, whose methods stand in one module for each kind of thing that is written.
"""

from __future__ import annotations

from pamola_dwriter.writer.documents import DocumentWrites
from pamola_dwriter.writer.figures import FigureWrites
from pamola_dwriter.writer.streams import StreamWrites

__all__ = ["DataWriter"]


class DataWriter(StreamWrites, DocumentWrites, FigureWrites):
    """Writes what an operation produces into one task directory.

    Parameters
    ----------
    task_dir : str, pathlib.Path or upath.UPath
        Local directory, or URL of any fsspec file system (``s3://bucket/task_042``). On a
        cluster every worker must reach it under this name. Locally the folders ``output``,
        ``dictionaries``, ``logs`` and ``visualizations`` are made in it.
    logger : logging.Logger, optional
        Told of every write that fails, once, at level error. Default: ``pamola_dwriter``.
    progress_tracker : HierarchicalProgressTracker or alike, optional
        Gets a subtask for each write; see :class:`~pamola_dwriter.tracker.Tracker`.
    use_encryption : bool, optional
        False: only writes that are given a key of their own are encrypted. True: every write
        needs a key. Default: whether there is one.
    encryption_key : optional
        Default key of every write; see :meth:`write_dataframe`.
    encryption_mode : str, optional
        ``age`` makes plain age files of whatever has a key, which must then be (or have among
        it) a public key of age; the ``age`` command opens them. ``none`` and ``simple``, which
        callers of the reference library pass, change nothing: whatever has a key is sealed in
        the one format of this package.
    storage_options : mapping, optional
        Passed to the fsspec file system: credentials, endpoint.
    client : distributed.Client, optional
        Cluster to write with. Default: the current client, else Dask's threaded scheduler.

    Raises
    ------
    InvalidPathError
        `task_dir` or `storage_options` is unusable.
    TargetUnavailableError
        The folders cannot be made.
    InvalidWriteError
        Another argument is wrong. The key is looked at when a write needs it.

    Warns
    -----
    NonAtomicStoreWarning
        The store cannot tell two writers at the same moment apart.

    Examples
    --------
    >>> import pandas as pd
    >>> writer = DataWriter("memory://docs/task_001")
    >>> result = writer.write_dataframe(pd.DataFrame({"x": [1, 2]}), "numbers", format="parquet")
    >>> result.rows
    2

    Notes
    -----
    Methods take further keywords, as operations forward theirs to any writer: what is no option
    is logged at debug level and left out; what is nearly one is refused as a misspelling.
    """
