"""Parquet Modular Encryption: keys for columns, inside files that other tools read too."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from distributed import Client
from pyarrow.parquet import encryption as pe

from pamola_dwriter import (
    DataWriter,
    ParquetEncryption,
    RawKey,
    WriterResult,
    decrypt,
    describe,
    open_parquet_keys,
    read_dataset,
    rotate_keys,
    verify,
)
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    WrongKeyError,
)
from pamola_dwriter.formats.parquet_encryption import is_supported
from tests.places import Place

COLUMNS = {"pii": ["name", "ssn"], "geo": ["place"]}
OWNER, ANALYST, STRANGER = b"o" * 32, b"a" * 32, b"s" * 32
SHARED = {"geo": [OWNER, ANALYST]}
SECRETS = (b"topsecretname", b"secretssn", b"hiddenplace")

needs_new_pyarrow = pytest.mark.slow  # what is left out of the run against the lowest versions


def frame(rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": [f"topsecretname-{row}" for row in range(rows)],
            "ssn": [f"secretssn-{row:09d}" for row in range(rows)],
            "place": [f"hiddenplace-{row}" for row in range(rows)],
            "amount": range(rows),
        }
    )


def write(
    folder: Path, name: str = "people", df: Any = None, key: Any = OWNER, **asked: Any
) -> WriterResult:
    ddf = dd.from_pandas(frame(), npartitions=2, sort=True) if df is None else df
    encryption = ParquetEncryption(**(asked or {"columns": COLUMNS}))
    writer = DataWriter(folder)
    return writer.write_dataframe(
        ddf, name, "parquet", encryption=encryption, encryption_key=key, write_index=False
    )


def parts(result: WriterResult) -> list[Path]:
    return sorted(Path(result.path).glob("*.parquet"))


def compute(result: WriterResult, columns: list[str] | None = None, key: Any = None) -> Any:
    return read_dataset(result.path, columns, encryption_key=key).compute()


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two frames hold the same, whatever kind of text theirs is."""
    return one.reset_index(drop=True).astype(object).equals(other.astype(object))


class Kms(pe.KmsClient):  # type: ignore[misc]  # pyarrow is not annotated
    """The recipe of the README: unwraps the keys in one part, given those of the dataset."""

    def __init__(self, keys: Mapping[str, bytes], part: Path) -> None:
        super().__init__()
        self.keys, self.part, self.data_keys = keys, part.name, list[bytes]()

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        data, write_id = base64.b64decode(wrapped_key), self.part.split("-")[2]
        place = f"pamola_dwriter.dataset:{write_id}:{master_key_identifier}:{self.part}"
        cipher = AESGCM(self.keys[master_key_identifier])
        self.data_keys.append(cipher.decrypt(data[:12], data[12:], place.encode()))
        return self.data_keys[-1]


def read_with_pyarrow(part: Path, kms: Kms, columns: list[str] | None = None) -> pa.Table:
    factory = pe.CryptoFactory(lambda _: kms)
    properties = factory.file_decryption_properties(pe.KmsConnectionConfig())
    with pq.ParquetFile(part, decryption_properties=properties) as file:
        return file.read(columns=columns)


@needs_new_pyarrow
@pytest.mark.parametrize(
    ("footer", "key"), [(None, "env:PII_KEY"), ("schema", "env:PII_KEY"), (None, OWNER)]
)
def test_a_frame_comes_back_whole_from_workers_that_resolve_the_key(
    client: Client, place: Place, pii_key: str, footer: str | None, key: Any
) -> None:
    """Workers find the key themselves, or are handed it, encrypt columns, and read them back."""
    ddf = dd.from_pandas(frame(), npartitions=3)
    done = place.writer(client=client).write_dataframe(
        ddf,
        "people",
        "parquet",
        encryption=ParquetEncryption(columns=COLUMNS, footer=footer),
        encryption_key=key,
    )
    options: Any = {"storage_options": place.options, "client": client}
    back = read_dataset(done.path, encryption_key=key, **options)
    pd.testing.assert_frame_equal(back.compute(), ddf.compute())
    assert verify(done.path, encryption_key=key, **options).encrypted
    assert done.encrypted


def test_a_pyarrow_that_is_too_old_is_named_before_any_work(tmp_path: Path) -> None:
    """With a pyarrow that cannot do it, the write says which can; with a new one it is done."""
    if is_supported():
        assert write(tmp_path).rows == 40
    else:
        with pytest.raises(InvalidWriteError, match="needs pyarrow 26"):
            write(tmp_path)


@needs_new_pyarrow
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # in Dask's own reader
def test_columns_without_a_key_are_read_without_one(tmp_path: Path) -> None:
    """Plain columns are open to this package, Dask, pyarrow and DuckDB; the others name a key."""
    done = write(tmp_path)
    total = frame().amount.sum()
    assert compute(done, ["amount"]).amount.sum() == total
    assert verify(done.path).parts == 2
    with pytest.raises(MissingKeyError, match=r"name, ssn, place"):
        read_dataset(done.path)
    with pytest.raises(MissingKeyError, match=r"column.s. ssn of"):
        read_dataset(done.path, ["amount", "ssn"])
    assert dd.read_parquet(done.path, columns=["amount"]).amount.sum().compute() == total
    assert pq.ParquetFile(parts(done)[0]).read(columns=["amount"]).num_rows == 20
    files = {"files": f"{done.path}/*.parquet"}
    found = duckdb.execute("select sum(amount), count(*) from read_parquet($files)", files)
    assert found.fetchall() == [(total, 40)]
    with pytest.raises(duckdb.Error, match="encrypted"):
        duckdb.execute("select name from read_parquet($files)", files).fetchall()


@needs_new_pyarrow
@pytest.mark.parametrize("footer", [None, "schema"])
def test_a_key_opens_its_columns_and_no_others(tmp_path: Path, footer: str | None) -> None:
    """An analyst reads the columns under the names that the analyst's key is listed for."""
    done = write(tmp_path, columns=COLUMNS, footer=footer, keys=SHARED)
    back = compute(done, ["place", "amount"], ANALYST)
    assert same(back, frame()[["place", "amount"]])
    with pytest.raises(MissingKeyError, match=r"does not open the column.s. name, ssn"):
        read_dataset(done.path, encryption_key=ANALYST)
    assert len(compute(done, key=OWNER).columns) == 4
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
        read_dataset(done.path, ["amount"], encryption_key=STRANGER)
    assert sorted(open_parquet_keys(done.path, encryption_key=ANALYST)) == sorted(
        ["geo", footer or "footer"]
    )


@needs_new_pyarrow
def test_an_encrypted_footer_leaves_nothing_to_read(tmp_path: Path) -> None:
    """Under a footer key, columns without a key of their own are under that one."""
    done = write(tmp_path, columns=COLUMNS, footer="schema")
    stored = b"".join(file.read_bytes() for file in Path(done.path).iterdir())
    assert not [word for word in (*SECRETS, b"amount", b"place") if word in stored]
    with pytest.raises(MissingKeyError):
        read_dataset(done.path, ["amount"])
    with pytest.raises(OSError, match="encrypted metadata"):
        pq.ParquetFile(parts(done)[0])


@needs_new_pyarrow
def test_pyarrow_alone_opens_a_part_given_the_keys(tmp_path: Path) -> None:
    """The ten lines of the README read a part, and no part from another place."""
    done = write(tmp_path)
    keys = open_parquet_keys(done.path, encryption_key=OWNER)
    first, second = parts(done)
    assert same(read_with_pyarrow(first, Kms(keys, first)).to_pandas(), frame()[:20])
    some = {name: key for name, key in keys.items() if name != "pii"}
    assert read_with_pyarrow(first, Kms(some, first), ["place"]).num_rows == 20
    with pytest.raises(KeyError):
        read_with_pyarrow(first, Kms(some, first), ["name"])
    with pytest.raises(Exception, match=r"^$"):  # cryptography's InvalidTag
        read_with_pyarrow(first, Kms(keys, second))


@needs_new_pyarrow
def test_duckdb_opens_what_is_under_one_key(tmp_path: Path) -> None:
    """Given the key of a whole file, DuckDB reads it; it knows no keys of columns."""
    done = write(tmp_path, footer="all")
    keys = open_parquet_keys(done.path, encryption_key=OWNER)
    part = parts(done)[0]
    kms = Kms(keys, part)
    read_with_pyarrow(part, kms)
    database = duckdb.connect()
    key = base64.b64encode(kms.data_keys[0]).decode()
    database.execute(f"PRAGMA add_parquet_key('k', '{key}')")
    query = "from read_parquet($part, encryption_config = {footer_key: 'k'})"
    found = database.execute(query, {"part": str(part)}).fetchall()
    assert found[3] == ("topsecretname-3", "secretssn-000000003", "hiddenplace-3", 3)
    with pytest.raises(duckdb.Error, match="is encrypted"):
        database.execute("from read_parquet($part)", {"part": str(part)})
    columns = write(tmp_path, "columns", columns=COLUMNS, footer="schema")
    with pytest.raises(duckdb.Error, match="AES tag"):
        database.execute(query, {"part": str(parts(columns)[0])})


@needs_new_pyarrow
def test_no_file_holds_a_value_or_a_key(tmp_path: Path) -> None:
    """Values of encrypted columns, their statistics and the keys are in no stored file."""
    done = write(tmp_path, columns=COLUMNS, keys=SHARED)
    keys = open_parquet_keys(done.path, encryption_key=OWNER).values()
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for secret in (*keys, OWNER, ANALYST):
        texts = [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")]
        assert not [text for text in texts if text in stored]
    assert not [word for word in SECRETS if word in stored]
    assert b"a" * 32 not in repr(ParquetEncryption(columns=COLUMNS, keys=SHARED)).encode()


Damage = Callable[[Path, Path, WriterResult], None]


def _swap(first: Path, second: Path, other: WriterResult) -> None:
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def _take_another(first: Path, second: Path, other: WriterResult) -> None:
    first.write_bytes(parts(other)[0].read_bytes())


def _take_a_plain_one(first: Path, second: Path, other: WriterResult) -> None:
    pq.write_table(pa.Table.from_pandas(frame(20)), first)


def _flip(first: Path, second: Path, other: WriterResult) -> None:
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    first.write_bytes(data)


def _truncate(first: Path, second: Path, other: WriterResult) -> None:
    first.write_bytes(first.read_bytes()[:-9])


def _remove(first: Path, second: Path, other: WriterResult) -> None:
    first.unlink()


@needs_new_pyarrow
@pytest.mark.parametrize(
    "asked",
    [{"columns": COLUMNS}, {"columns": COLUMNS, "footer": "schema"}, {"footer": "all"}],
    ids=["plain-footer", "footer", "uniform"],
)
@pytest.mark.parametrize(
    "damage", [_swap, _take_another, _take_a_plain_one, _flip, _truncate, _remove]
)
def test_a_damaged_part_is_named(tmp_path: Path, asked: Any, damage: Damage) -> None:
    """A part that is swapped, foreign, plain, altered, cut or gone does not open, and is named."""
    done, other = write(tmp_path, **asked), write(tmp_path, "other", **asked)
    first, second = parts(done)
    damage(first, second, other)
    for look in (lambda: compute(done, key=OWNER), lambda: verify(done.path, encryption_key=OWNER)):
        with pytest.raises(IntegrityError, match=f"{first.name}|{second.name}") as caught:
            look()
        assert not [word for word in SECRETS if word in str(caught.value).encode()]


@needs_new_pyarrow
def test_a_swapped_part_does_not_open_for_its_plain_columns_either(tmp_path: Path) -> None:
    """The signature of a plain footer is checked for whoever holds a key."""
    done = write(tmp_path)
    _swap(*parts(done), done)
    with pytest.raises(IntegrityError, match="part part-0000"):
        compute(done, ["amount"], OWNER)


@needs_new_pyarrow
def test_no_byte_of_a_wholly_encrypted_part_changes_what_is_read(tmp_path: Path) -> None:
    """A byte that is altered is noticed, but for the names of a KMS that nothing goes by."""
    done = write(tmp_path, df=dd.from_pandas(frame(3), npartitions=1), columns=COLUMNS, footer="f")
    part = parts(done)[0]
    data = part.read_bytes()
    noticed, places = 0, range(4, len(data), 11)
    for place in places:
        part.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            assert same(compute(done, key=OWNER), frame(3))
        except IntegrityError as error:
            noticed += error.part == part.name
    assert noticed > 0.98 * len(places)


@needs_new_pyarrow
def test_the_footer_that_shows_is_signed(tmp_path: Path) -> None:
    """Whichever byte of a plain footer is altered, a reader with a key notices."""
    done = write(tmp_path, df=dd.from_pandas(frame(3), npartitions=1))
    part = parts(done)[0]
    data = part.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    for place in range(len(data) - 8 - footer, len(data), 17):
        part.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(IntegrityError, match=part.name):
            compute(done, key=OWNER)


@needs_new_pyarrow
def test_an_edited_manifest_is_noticed_with_a_key(tmp_path: Path) -> None:
    """A part dropped from the list, or other totals, or no encryption, do not pass."""
    done = write(tmp_path)
    path = Path(str(done.manifest))
    document = json.loads(path.read_bytes())

    def store(change: Callable[[dict[str, Any]], None]) -> None:
        edited = json.loads(json.dumps(document))
        change(edited)
        path.write_text(json.dumps(edited))

    def drop(edited: dict[str, Any]) -> None:
        gone = edited["parts"].pop()
        edited["totals"] = {
            "parts": 1,
            "rows": 20,
            "bytes": edited["totals"]["bytes"] - gone["size_bytes"],
        }

    edits: list[Callable[[dict[str, Any]], Any]] = [
        drop,
        lambda edited: edited.pop("encryption"),
        lambda edited: edited.pop("parquet_encryption"),
        lambda edited: edited["parquet_encryption"]["columns"].pop("pii"),
        lambda edited: edited["parts"].reverse(),
    ]
    for edit in edits:
        store(edit)
        with pytest.raises(IntegrityError):
            compute(done, key=OWNER)
    store(lambda edited: edited["encryption"].pop("mac"))
    with pytest.raises(IntegrityError):
        read_dataset(done.path, ["amount"])
    store(lambda edited: edited["encryption"]["column_keys"].update(pii=[]))
    with pytest.raises(MissingKeyError, match="name, ssn"):
        compute(done, key=OWNER)


@needs_new_pyarrow
def test_wrapped_keys_of_columns_cannot_change_places(tmp_path: Path) -> None:
    """A wrapped key is bound to its name: put under another, it opens nothing."""
    done = write(tmp_path)
    path = Path(str(done.manifest))
    document = json.loads(path.read_bytes())
    held = document["encryption"]["column_keys"]
    held["pii"], held["geo"] = held["geo"], held["pii"]
    path.write_text(json.dumps(document))
    with pytest.raises(MissingKeyError, match="name, ssn, place"):
        compute(done, key=OWNER)


@needs_new_pyarrow
def test_keys_are_rotated_and_revoked_by_columns(tmp_path: Path) -> None:
    """A new key opens what the given one opens; one that is revoked opens nothing any more."""
    done = write(tmp_path, columns=COLUMNS, keys=SHARED)
    data = [part.read_bytes() for part in parts(done)]
    rotate_keys(done.path, encryption_key=ANALYST, to=STRANGER)
    assert len(compute(done, ["place", "amount"], STRANGER)) == 40
    with pytest.raises(MissingKeyError, match="name, ssn"):
        read_dataset(done.path, encryption_key=STRANGER)
    rotate_keys(done.path, encryption_key=OWNER, revoke=RawKey(ANALYST).key_id)
    with pytest.raises(WrongKeyError):
        read_dataset(done.path, ["place"], encryption_key=ANALYST)
    assert len(compute(done, key=OWNER)) == 40
    ids = [key["key_id"] for key in describe(done.path)["column_keys"]["geo"]]
    assert ids == [RawKey(OWNER).key_id, RawKey(STRANGER).key_id]
    with pytest.raises(InvalidKeyError, match="'pii'"):
        rotate_keys(done.path, encryption_key=STRANGER, revoke=RawKey(OWNER).key_id)
    assert [part.read_bytes() for part in parts(done)] == data


@needs_new_pyarrow
def test_decrypt_makes_plain_files(tmp_path: Path) -> None:
    """What is copied out has all columns, and no key; a key of some columns is not enough."""
    done = write(tmp_path, columns=COLUMNS, keys=SHARED)
    with pytest.raises(MissingKeyError):
        decrypt(done.path, tmp_path / "copy", encryption_key=ANALYST)
    decrypt(done.path, tmp_path / "copy", encryption_key=OWNER)
    assert same(pd.read_parquet(tmp_path / "copy"), frame())


@needs_new_pyarrow
def test_hive_folders_lists_and_wide_datasets_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain hive columns, nested encrypted ones and a part table go with encrypted columns."""
    monkeypatch.setenv("DASK_PAMOLA__INLINE_PARTS", "1")
    table = pa.table(
        {
            "kind": ["x", "y"] * 10,
            "nested": [{"a": f"topsecretname{row}", "b": [row]} for row in range(20)],
            "a.b": [f"secretssn{row}" for row in range(20)],
        }
    )
    for footer in (None, "f"):
        encryption = ParquetEncryption(columns={"pii": ["nested", "a.b"]}, footer=footer)
        done = DataWriter(tmp_path).write_dataframe(
            table,
            "nested",
            "parquet",
            encryption=encryption,
            encryption_key=OWNER,
            partition_on="kind",
        )
        back = compute(done, key=OWNER)
        assert sorted(value["a"] for value in back["nested"])[0] == "topsecretname0"
        stored = b"".join(each.read_bytes() for each in Path(done.path).rglob("*.*"))
        assert not [word for word in SECRETS if word in stored]
        assert bool(list(Path(done.path).glob("kind=*"))) == (footer is None)


@needs_new_pyarrow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"columns": {}}, "encrypts nothing"),
        ({"columns": {"pii": []}}, "no columns"),
        ({"columns": {"pii": "name"}}, "needs a list"),
        ({"columns": {"pii": ["name"], "geo": ["name"]}}, "'name' is named twice"),
        ({"columns": {"footer": ["name"]}}, "another name"),
        ({"columns": {"pii": ["name"]}, "footer": "pii"}, "another name"),
        ({"columns": {"p i": ["name"]}}, "key name"),
        ({"columns": {1: ["name"]}}, "key name"),
        ({"columns": COLUMNS, "keys": {"other": OWNER}}, "other"),
        ({"columns": {"pii": ["nmae"]}}, "'nmae', which the frame has no column for"),
        ({"columns": COLUMNS, "keys": {"pii": b"short"}}, "keys\\['pii'\\]"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, asked: Any, said: str) -> None:
    """A mistake in the encryption is named, and nothing is written."""
    with pytest.raises((InvalidWriteError, InvalidKeyError), match=said):
        write(tmp_path, **asked)
    assert not list(tmp_path.rglob("*.parquet"))


@needs_new_pyarrow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "csv"}, "format='parquet'"),
        ({"encryption_key": None}, "needs an encryption_key"),
        ({"partition_on": "name"}, "partition_on would show"),
        ({"append": True}, "excludes append"),
        ({"resume": True}, "excludes append=True, resume"),
        ({"single_file": True}, "single_file"),
        ({"encryption": "pii"}, "must be a ParquetEncryption, not str"),
        ({"encryption": ParquetEncryption(columns={"pii": ["id"]})}, "in the index"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(
    tmp_path: Path, options: Any, said: str
) -> None:
    """Options that would show what is encrypted, or are not supported with it, are refused."""
    asked = {
        "format": "parquet",
        "encryption": ParquetEncryption(columns=COLUMNS),
        "encryption_key": OWNER,
        **options,
    }
    indexed = frame().rename_axis("id")
    with pytest.raises(InvalidWriteError, match=said):
        DataWriter(tmp_path).write_dataframe(dd.from_pandas(indexed, npartitions=2), "x", **asked)
    assert not list(tmp_path.rglob("*.parquet"))


@needs_new_pyarrow
def test_categories_are_not_shown(tmp_path: Path) -> None:
    """A plain manifest would list the values of a categorical: they are refused, or hidden."""
    kinds = frame().astype({"place": "category"})
    with pytest.raises(InvalidWriteError, match="categories of 'place'"):
        write(tmp_path, df=kinds)
    for asked in ({"columns": COLUMNS}, {"columns": COLUMNS, "footer": "f"}):
        ddf: Any = dd.from_pandas(kinds, npartitions=2)
        if "footer" not in asked:
            ddf["place"] = ddf.place.cat.as_unknown()
        done = write(tmp_path, df=ddf, **asked)
        assert b"hiddenplace" not in b"".join(
            each.read_bytes() for each in Path(done.path).iterdir()
        )
        assert list(compute(done, key=OWNER).place.astype(str)) == list(frame().place)


@needs_new_pyarrow
def test_nothing_is_appended_to_it_and_it_is_overwritten(tmp_path: Path) -> None:
    """An append names why it cannot be; an overwrite of another kind replaces it, and back."""
    done = write(tmp_path)
    with pytest.raises(InvalidTargetError, match="ParquetEncryption"):
        DataWriter(tmp_path).write_dataframe(
            dd.from_pandas(frame(), npartitions=2),
            "people",
            "parquet",
            encryption_key=OWNER,
            append=True,
        )
    plain = DataWriter(tmp_path).write_dataframe(
        dd.from_pandas(frame(), npartitions=2), "people", "parquet"
    )
    assert plain.path == done.path
    assert len(compute(plain)) == 40
    with pytest.raises(DataReadError, match="not written with"):
        open_parquet_keys(plain.path, encryption_key=None)
    assert len(compute(write(tmp_path), key=OWNER)) == 40
