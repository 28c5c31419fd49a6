"""Write the known answers beside this file, for any implementation to be held against.

Run ``python -m tests.vectors.make_vectors`` in the root of the project to make them anew. They
must never change as long as files begin with ``PDW1``; more may be added at the end of a list.

``sealed_v1.json``
    Sealed bytes. Long plaintexts are given by `size` alone: byte number ``i`` is ``i % 251``.
``refused_v1.json``
    Sealed bytes that nobody may open: an entry of ``sealed_v1.json``, and what was done to it.
``wrapped_v1.json``
    Bytes 0 to 31, wrapped under raw bytes 200 to 231 and under a passphrase, with a salt and a
    nonce of zeros. ``wraps_v1.json`` has more, and those that must not open; a new method of
    wrapping adds its entries there.
``manifests_v1.json``
    Manifests of a plain and of encrypted datasets, as stored and as what they say.
``files_v1.json``
    Encrypted single files.
``parquet_v1.json``
    Of a dataset that is encrypted inside Parquet files: the key of footers, a data key wrapped for
    its place, and a manifest that shows itself.
``recipients_v1.json``
    Keys wrapped to public keys, with the private keys that open them. Encryption to a public key
    draws its own randomness, so that this file is made once: it is left as it is if it stands.
``part_table_v1.parquet``
    The part table that the manifests name. Parquet has many spellings, so that this one file is
    not made anew: :func:`parts` says what stands in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyrage

from pamola_dwriter import manifest
from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.envelope import (
    authenticate,
    footer_key,
    seal_with,
    wrap_data_key,
)
from pamola_dwriter.keys import (
    Cost,
    Passphrase,
    RawKey,
    generate_key,
    resolve,
    wrapped_to_json,
)
from pamola_dwriter.manifest import Envelope, Manifest, PartTable
from pamola_dwriter.sealing import FileKeys, file_header
from pamola_dwriter.spec import FormatSpec, PartRecord, WrappedKey, WriteId
from tests.vectors import sealed
from tests.vectors.sealed import KEY, NONCE_PREFIX, SALT

DIRECTORY = Path(__file__).parent


def wrapped() -> list[dict[str, Any]]:
    """Return one known answer of each wrapping method."""
    cheap = Cost(iterations=1, memory_kib=64, lanes=1)
    context = b"pamola_dwriter.dataset:0123456789abcdef"
    return [
        wrapped_to_json(provider.wrap_with(KEY, context, salt=bytes(16), nonce=bytes(12)))
        for provider in (
            RawKey(bytes(range(200, 232))),
            Passphrase("correct horse battery", cost=cheap),
        )
    ]


CHEAP = {"iterations": 1, "memory_kib": 64, "lanes": 1}
RAW = bytes(range(200, 232))
WRITE_ID = WriteId("0123456789abcdef")
OLDER_ID = WriteId("fedcba9876543210")
CONTEXT = f"pamola_dwriter.dataset:{OLDER_ID}"


def wraps() -> list[dict[str, Any]]:
    """Return wrapped keys, what opens them, and what then comes out: a key, or nothing."""
    secrets: list[dict[str, Any]] = [
        {"raw": RAW.hex()},
        {"raw": bytes(32).hex()},
        {"passphrase": "correct horse battery", **CHEAP},
        {"passphrase": "pâté à la carte", **CHEAP},
        {"passphrase": "several lanes and rounds", "iterations": 3, "memory_kib": 256, "lanes": 4},
    ]
    answers = []
    for secret in secrets:
        wrapped_key = wrapped_to_json(_wrap(secret))
        good = {"secret": secret, "context": CONTEXT, "wrapped": wrapped_key, "key": KEY.hex()}
        answers.append({"what": "as wrapped", **good})
        bad = good | {"key": None}
        wrong = {"raw": "01" * 32} if "raw" in secret else {"passphrase": "another one", **CHEAP}
        answers.append({"what": "another secret", **bad, "secret": wrong})
        answers.append({"what": "another context", **bad, "context": CONTEXT[:-1] + "1"})
        for name in ("salt", "nonce", "ciphertext"):
            text = wrapped_key["parameters"][name]
            changed = wrapped_key["parameters"] | {
                name: ("A" if text[0] != "A" else "B") + text[1:]
            }
            edited = {**wrapped_key, "parameters": changed}
            answers.append({"what": f"another {name}", **bad, "wrapped": edited})
    return answers


def _wrap(secret: dict[str, Any]) -> WrappedKey:
    salt, nonce = bytes(range(16)), bytes(range(50, 62))
    provider: RawKey | Passphrase
    if "raw" in secret:
        provider = RawKey(bytes.fromhex(secret["raw"]))
    else:
        costs = {name: secret[name] for name in CHEAP}
        provider = Passphrase(secret["passphrase"], cost=Cost(**costs))
    return provider.wrap_with(KEY, CONTEXT.encode(), salt=salt, nonce=nonce)


def parts() -> tuple[PartRecord, ...]:
    """Return three parts, of hive values that need quoting and that are missing."""
    values = ["FR", "é=ü/x", None]
    folders = ["country=FR", "country=%C3%A9%3D%C3%BC%2Fx", "country=__HIVE_DEFAULT_PARTITION__"]
    return tuple(
        PartRecord(
            path=f"{folder}/part-0000{number}-{WRITE_ID}-267c722b-000.parquet",
            partition=number,
            values=(("country", value),),
            rows=10 + number,
            size_bytes=1000 + number,
            plain_bytes=900 + number,
            sha256=hashlib.sha256(folder.encode()).hexdigest(),
        )
        for number, (folder, value) in enumerate(zip(folders, values, strict=True))
    )


def _manifest(*, in_table: bool) -> Manifest:
    table = (DIRECTORY / "part_table_v1.parquet").read_bytes()
    described = {"kind": "string", "storage": "pyarrow", "na": "NA"}
    named = PartTable(
        path=f"_parts-{WRITE_ID}-0badcafe.parquet",
        sha256=hashlib.sha256(table).hexdigest(),
        size_bytes=len(table),
    )
    return Manifest(
        write_id=WRITE_ID,
        created=datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
        format=FormatSpec(name="parquet", compression="zstd", row_group_size=1000),
        schema=pa.schema([("country", pa.string()), ("größe", pa.decimal128(12, 2))]),
        frame={
            "columns": [
                {"name": "country", "dtype": described},
                {"name": "größe", "dtype": {"kind": "arrow"}},
            ],
            "index": [],
            "axis": {"name": None, "dtype": None},
        },
        partition_on=("country",),
        totals={"rows": 33, "bytes": 3003, "parts": 3},
        producer={"pamola_dwriter": "1.0", "dask": "1", "pandas": "2", "pyarrow": "3"},
        writes=(OLDER_ID, WRITE_ID),
        retired={WriteId("a" * 16): datetime(2024, 2, 29, tzinfo=UTC)},
        parts=() if in_table else parts(),
        part_table=named if in_table else None,
    )


def manifests() -> list[dict[str, Any]]:
    """Return manifests as stored, with the body that an encrypted one has sealed."""
    plain = _manifest(in_table=False)
    body = manifest.dump_body(plain)
    return [
        {"stored": manifest.dump_envelope(manifest.plain_envelope(plain, body)).decode()},
        *(_sealed_manifest(_manifest(in_table=in_table)) for in_table in (False, True)),
    ]


def _sealed_manifest(document: Manifest) -> dict[str, Any]:
    body = manifest.dump_body(document)
    header = manifest.sealed_header(WRITE_ID, "manifest", "_manifest.json")
    shown = Envelope(
        write_id=WRITE_ID,
        writes=document.writes,
        retired=document.retired,
        keyed_by=OLDER_ID,
        wrapped=(wrapped_to_json(_wrap({"raw": RAW.hex()})),),
        sealed=seal_with(body, KEY, header, salt=SALT, nonce_prefix=NONCE_PREFIX).to_pybytes(),
    )
    answer = {"stored": manifest.dump_envelope(shown).decode(), "body": body.decode()}
    return answer | {"raw": RAW.hex(), "salt": SALT.hex(), "nonce_prefix": NONCE_PREFIX.hex()}


def files() -> list[dict[str, Any]]:
    """Return encrypted single files, one as it was written and one changed by a later write."""
    answers = []
    for write_id, name in ((OLDER_ID, "größe.csv.pdw"), (WRITE_ID, "größe.csv.pdw")):
        held = FileKeys(write_id=write_id, keyed_by=OLDER_ID, wrapped=(_wrap({"raw": RAW.hex()}),))
        header = file_header(name, held)
        plain = f'"x"\n{name}\n'.encode()
        sealed_file = seal_with(plain, KEY, header, salt=SALT, nonce_prefix=NONCE_PREFIX)
        stored = sealed_file.to_pybytes().hex()
        answers.append({"header": header, "stored": stored, "plain": plain.hex(), "raw": RAW.hex()})
    return answers


def parquet() -> list[dict[str, Any]]:
    """Return what ``encryption=ParquetEncryption(...)`` adds, of a dataset with a plain footer."""
    path, nonce = f"part-00000-{WRITE_ID}-267c722b-000.parquet", bytes(range(50, 62))
    place = manifest.part_key_context(WRITE_ID, path, "pii")
    columns = ParquetColumns(footer=None, columns={"pii": ("größe",)})
    document = replace(_manifest(in_table=False), parquet=columns)
    shown = replace(
        manifest.plain_envelope(document, manifest.dump_body(document)),
        keyed_by=OLDER_ID,
        wrapped=(wrapped_to_json(_wrap({"raw": RAW.hex()})),),
        column_keys={"pii": (wrapped_to_json(_wrap_columns("pii")),)},
    )
    stored = manifest.dump_envelope(
        replace(shown, mac=authenticate(KEY, manifest.shown_body(shown)))
    )
    return [
        {
            "raw": RAW.hex(),
            "footer_key": footer_key(KEY).hex(),
            "column_key": COLUMN_KEY.hex(),
            "data_key": SALT.hex(),
            "place": place.decode(),
            "wrapped": wrap_data_key(COLUMN_KEY, SALT, place, nonce),
            "manifest": stored.decode(),
        }
    ]


COLUMN_KEY = bytes(range(64, 96))


def _wrap_columns(name: str) -> WrappedKey:
    context = manifest.key_context(OLDER_ID, name)
    salt, nonce = bytes(range(16)), bytes(range(50, 62))
    return RawKey(RAW).wrap_with(COLUMN_KEY, context, salt=salt, nonce=nonce)


def recipients() -> list[dict[str, Any]]:
    """Return keys wrapped to public keys that are drawn now."""
    drawn = [
        *(generate_key(kind).strip() for kind in ("x25519", "x25519-mlkem768")),
        str(pyrage.x25519.Identity.generate()),
    ]
    return [
        {
            "secret": secret,
            "context": CONTEXT,
            "wrapped": wrapped_to_json(resolve(secret)[0].wrap(KEY, CONTEXT.encode())),
            "key": KEY.hex(),
        }
        for secret in drawn
    ]


MADE = {
    "sealed_v1.json": sealed.answers,
    "refused_v1.json": sealed.refused,
    "wrapped_v1.json": wrapped,
    "wraps_v1.json": wraps,
    "manifests_v1.json": manifests,
    "files_v1.json": files,
    "parquet_v1.json": parquet,
}
"""From the name of a file to what makes its content."""


def text_of(name: str) -> str:
    """Return the content of one of the files, made anew."""
    return _dump(MADE[name]())


def _dump(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in MADE:
        (DIRECTORY / each).write_text(text_of(each), encoding="utf-8")
    if not (once := DIRECTORY / "recipients_v1.json").exists():
        once.write_text(_dump(recipients()), encoding="utf-8")
