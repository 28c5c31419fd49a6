"""Parquet Modular Encryption, as a caller asks for it: which columns stand under which key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pamola_dwriter.errors import InvalidWriteError

PLAIN_FOOTER_KEY = "footer"
"""Name, inside the files, of the key that signs a footer which anybody can read."""

_KEY_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetColumns:
    """Which columns of a dataset stand under which key; what its manifest says of them.

    Attributes
    ----------
    footer : str or None
        Name of the key of the footer and of every column not in `columns`. None: the footer is
        signed and not encrypted, and those columns can be read by anybody.
    columns : mapping of str to tuple of str
        The columns under each other key.
    """

    footer: str | None
    columns: Mapping[str, tuple[str, ...]]

    @property
    def footer_key(self) -> str:
        """Name of the footer's key inside the files."""
        return self.footer or PLAIN_FOOTER_KEY

    def key_names(self, names: Sequence[str]) -> set[str]:
        """Return the names of the keys, beside the footer's, that the columns `names` need."""
        wanted = set(names)
        return {name for name, columns in self.columns.items() if wanted.intersection(columns)}

    def locked(self, names: Sequence[str], opened: Sequence[str]) -> list[str]:
        """Return those of the columns `names` whose key is not among those `opened`."""
        closed = {
            column
            for key_name, columns in self.columns.items()
            if key_name not in opened
            for column in columns
        }
        return [name for name in names if name in closed]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetEncryption:
    """Encrypt columns inside Parquet files, each group of them under a key of its own.

    Every key name stands for a random 256-bit key of the write. It is stored wrapped by the
    providers in `keys`, or else by those of ``encryption_key``; a reader's key opens the columns
    under the names that it is among the providers of, and the footer.

    Parameters
    ----------
    columns : mapping of str to list of str, optional
        Columns by key name. All others stay readable without a key, unless `footer` is given.
    footer : str, optional
        Name of the key that encrypts the footer (schema, statistics, numbers of rows), and with
        it every column that `columns` does not name. It is a name of its own, since every key
        opens the footer. None leaves the footer plain, and signed. Without `columns`, whole files
        are encrypted under the one key.
    keys : mapping of str to key, optional
        By key name in `columns`: what ``encryption_key`` takes. One that is left out is opened by
        ``encryption_key``. Whoever is to open all columns is listed for each name.

    Raises
    ------
    InvalidWriteError
        No column is named, or one twice; a key name is none, or is not in `columns`.

    Examples
    --------
    >>> ParquetEncryption(columns={"pii": ["name", "ssn"]})
    ParquetEncryption(columns={'pii': ['name', 'ssn']}, footer=None)
    """

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    footer: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for given in (self.columns, self.keys):
            _check(given, Mapping, "columns and keys of a ParquetEncryption are mappings")
        if not self.columns and self.footer is None:
            raise InvalidWriteError(
                "a ParquetEncryption without columns encrypts nothing; name columns, or a footer "
                "key for whole files"
            )
        for name in (*self.columns, *([] if self.footer is None else [self.footer])):
            rule = f"a key name is up to 64 letters, digits, '_', '-' and '.', not {name!r}"
            _check(name, str, rule)
            if not _KEY_NAME.fullmatch(name):
                raise InvalidWriteError(rule)
        if (self.footer or PLAIN_FOOTER_KEY) in self.columns:
            raise InvalidWriteError(
                f"{self.footer or PLAIN_FOOTER_KEY!r} names the key of the footer, which every key "
                "opens; give the columns under it another name"
            )
        self._check_columns()
        if unknown := [name for name in self.keys if name not in self.columns]:
            raise InvalidWriteError(f"keys names {unknown}, which columns has no columns for")

    def _check_columns(self) -> None:
        seen: set[str] = set()
        for key_name, names in self.columns.items():
            _check(names, (list, tuple), f"key {key_name!r} needs a list of columns, not {names!r}")
            if not names:
                raise InvalidWriteError(f"key {key_name!r} has no columns; leave it out")
            for name in names:
                _check(name, str, f"key {key_name!r} names {name!r}, which is no column")
                if name in seen:
                    raise InvalidWriteError(f"column {name!r} is named twice; it has one key")
                seen.add(name)

    @property
    def layout(self) -> ParquetColumns:
        """What the manifest says of it."""
        columns = {key_name: tuple(names) for key_name, names in self.columns.items()}
        return ParquetColumns(footer=self.footer, columns=columns)


def _check(value: object, kind: type | tuple[type, ...], rule: str) -> None:
    if not isinstance(value, kind):
        raise InvalidWriteError(rule)
