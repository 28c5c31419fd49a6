"""Writing what is no frame: JSON documents, dictionaries and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pamola_dwriter import documents
from pamola_dwriter.artifacts import put_artifact, update_artifact
from pamola_dwriter.errors import InvalidTargetError, UnsupportedDataError
from pamola_dwriter.request import check_flag, check_request
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.writer.base import PARAMETERS
from pamola_dwriter.writer.datasets import DatasetWrites

_JSON = "json"
_FOLDER = "dictionaries"
_DICTIONARY = "write dictionary"

_UPDATE_PARAMETERS = frozenset({"name", "subdir", "encryption_key", "create_if_missing", "pretty"})


class DocumentWrites(DatasetWrites):
    """Writes JSON documents, dictionaries and metrics, from this process."""

    def write_json(  # noqa: PLR0913 - the specified signature
        self,
        data: Any,
        name: str,
        subdir: str | None = None,
        timestamp_in_name: bool = False,
        encryption_key: Any = None,
        pretty: bool = True,
        overwrite: bool = True,
        **kwargs: Any,
    ) -> WriterResult:
        """Write a JSON document, atomically.

        Parameters
        ----------
        data : object
            What JSON holds, and NumPy and pandas scalars and arrays, dates and times, Decimals,
            Paths, Enums, dataclasses and sets; see :func:`pamola_dwriter.documents.encode` for
            how each is written. NaN and infinities become null.
        name : str
            Base name of the file; it gets the extension ``.json``.
        subdir : str, optional
            Folder below the task directory; default the task directory itself.
        timestamp_in_name : bool, default False
            Append ``_YYYYMMDD_HHMMSS`` in UTC; with microseconds if that is taken.
        encryption_key : optional
            As in :meth:`write_dataframe`; a sealed file gets the extension ``.json.pdw``.
        pretty : bool, default True
            Indent by two blanks; else everything in one line.
        overwrite : bool, default True
            Replace what stands there.

        Raises
        ------
        UnsupportedDataError
            JSON cannot hold `data`; names where in it, and the type.
        InvalidWriteError, TargetExistsError, TargetUnavailableError, EncryptionKeyError
            As :meth:`write_dataframe`.
        """
        with self._reporting("write JSON"), self._step(f"Writing {name}"):
            parameters = PARAMETERS | {"data", "subdir", "pretty"}
            self._take("write_json", kwargs, parameters, encryption_key)
            flags = {"timestamp_in_name": timestamp_in_name, "overwrite": overwrite}
            return self._put_json(data, name, subdir, encryption_key, pretty=pretty, **flags)

    def append_to_json_array(
        self,
        item: Any,
        name: str,
        subdir: str | None = None,
        encryption_key: Any = None,
        create_if_missing: bool = True,
        pretty: bool = True,
        **kwargs: Any,
    ) -> WriterResult:
        """Append one item to a JSON array; whoever else appends, every item counts once.

        Parameters
        ----------
        item : object
            As `data` of :meth:`write_json`.
        create_if_missing : bool, default True
            Begin a new array if there is no such file.

        Raises
        ------
        InvalidTargetError
            The file is no JSON array, or is missing; what stands there is kept.
        MissingKeyError, WrongKeyError
            It is encrypted and the key is missing or wrong.
        """
        with self._reporting("append to JSON array"), self._step(f"Appending to {name}"):
            parameters = _UPDATE_PARAMETERS | {"item"}
            self._take("append_to_json_array", kwargs, parameters, encryption_key)
            check_flag("pretty", pretty)

            def change(stored: bytes | None) -> bytes:
                return documents.append_item(stored, item, pretty=pretty)

            return self._update(name, subdir, encryption_key, create_if_missing, change)

    def merge_json_objects(  # noqa: PLR0913 - the specified signature
        self,
        data: Mapping[str, Any],
        name: str,
        subdir: str | None = None,
        encryption_key: Any = None,
        create_if_missing: bool = True,
        overwrite_existing: bool = True,
        recursive_merge: bool = True,
        pretty: bool = True,
        **kwargs: Any,
    ) -> WriterResult:
        """Merge `data` into a JSON object; whoever else merges, no key is lost.

        Parameters
        ----------
        data : mapping
            As `data` of :meth:`write_json`.
        create_if_missing : bool, default True
            Begin a new object if there is no such file.
        overwrite_existing : bool, default True
            Replace values that are there; else only keys that are missing are added.
        recursive_merge : bool, default True
            Merge objects inside the object too; else they are values like any other.

        Raises
        ------
        InvalidTargetError
            The file is no JSON object, or is missing; what stands there is kept.
        MissingKeyError, WrongKeyError
            It is encrypted and the key is missing or wrong.
        """
        with self._reporting("merge JSON objects"), self._step(f"Merging into {name}"):
            parameters = _UPDATE_PARAMETERS | {"overwrite_existing", "recursive_merge", "data"}
            self._take("merge_json_objects", kwargs, parameters, encryption_key)
            check_flag("pretty", pretty)
            check_flag("overwrite_existing", overwrite_existing)
            check_flag("recursive_merge", recursive_merge)

            def change(stored: bytes | None) -> bytes:
                return documents.merge_object(
                    stored,
                    data,
                    overwrite_existing=overwrite_existing,
                    recursive=recursive_merge,
                    pretty=pretty,
                )

            return self._update(name, subdir, encryption_key, create_if_missing, change)

    def write_dictionary(
        self,
        data: Mapping[Any, Any],
        name: str,
        timestamp_in_name: bool = False,
        encryption_key: Any = None,
        overwrite: bool = True,
        format: str = _JSON,  # noqa: A002 - the specified name
        **kwargs: Any,
    ) -> WriterResult:
        """Write a dictionary to ``dictionaries/``: as JSON, or as a table.

        Parameters
        ----------
        data : mapping
            For a table: a flat one, one of lists (columns) or one of mappings (rows, with
            their keys); see :func:`pamola_dwriter.documents.to_frame`.
        format : str, default "json"
            ``json``, or a format of :meth:`write_dataframe` (``csv``, ``parquet``...).
        """
        with self._reporting(_DICTIONARY):
            self._take("write_dictionary", kwargs, PARAMETERS | {"data", "format"}, encryption_key)
            if not isinstance(data, Mapping):
                raise UnsupportedDataError(f"data must be a mapping, not {type(data).__name__}")
            flags = {"timestamp_in_name": timestamp_in_name, "overwrite": overwrite}
            if format == _JSON:
                with self._step(f"Writing {name}"):
                    return self._put_json(data, name, _FOLDER, encryption_key, **flags)
            request = check_request(
                name, format, _FOLDER, {"single_file": True, "write_index": False}, **flags
            )
            frame = documents.to_frame(data)
            lazy = self._bind(frame, request, self._key(encryption_key), _DICTIONARY)
        return lazy.compute()

    def write_metrics(
        self,
        metrics: Mapping[str, Any],
        name: str,
        timestamp_in_name: bool = True,
        encryption_key: Any = None,
        overwrite: bool = True,
        **kwargs: Any,
    ) -> WriterResult:
        """Write metrics to the task directory, with who made them and when.

        Parameters
        ----------
        metrics : mapping
            As `data` of :meth:`write_json`; written with ``metadata`` beside it, which holds
            the time, the name, and module, class, function and version of the caller.
        timestamp_in_name : bool, default True
            Append ``_YYYYMMDD_HHMMSS`` in UTC; with microseconds if that is taken.
        """
        with self._reporting("write metrics"), self._step(f"Writing {name}"):
            self._take("write_metrics", kwargs, PARAMETERS | {"metrics"}, encryption_key)
            enriched = documents.enrich_metrics(
                metrics, name=name, moment=datetime.now(UTC), caller=documents.find_caller()
            )
            flags = {"timestamp_in_name": timestamp_in_name, "overwrite": overwrite}
            return self._put_json(enriched, name, None, encryption_key, **flags)

    def _put_json(
        self,
        data: Any,
        name: str,
        subdir: str | None,
        encryption_key: Any,
        *,
        pretty: bool = True,
        **flags: bool,
    ) -> WriterResult:
        check_flag("pretty", pretty)
        providers = self._key(encryption_key)
        wanted = self._wanted(name, subdir, _JSON, providers, **flags)
        encoded = documents.encode(data, pretty=pretty)
        return put_artifact(self._place, wanted, encoded, providers, format_name=_JSON)

    def _update(
        self,
        name: str,
        subdir: str | None,
        encryption_key: Any,
        create_if_missing: bool,
        change: Callable[[bytes | None], bytes],
    ) -> WriterResult:
        check_flag("create_if_missing", create_if_missing)
        providers = self._key(encryption_key)
        wanted = self._wanted(name, subdir, _JSON, providers)

        def change_existing(stored: bytes | None) -> bytes:
            if stored is None and not create_if_missing:
                raise InvalidTargetError(
                    f"there is no {self._place.url(wanted.file)} to add to; pass "
                    "create_if_missing=True to begin it"
                )
            return change(stored)

        return update_artifact(self._place, wanted, change_existing, providers, format_name=_JSON)
