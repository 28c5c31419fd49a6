"""The manifest as it is stored, with whatever it shows without a key."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

from pamola_dwriter import untrusted
from pamola_dwriter.errors import IntegrityError, InvalidWriteError, UnsupportedVersionError
from pamola_dwriter.manifest.fields import (
    DAMAGED,
    canonical,
    parse_retired,
    parse_write_id,
    retired_to_json,
)
from pamola_dwriter.manifest.nouns import KIND, VERSION, Envelope, Manifest

_LONGEST_SHOWN = 30


def plain_envelope(manifest: Manifest, body: bytes) -> Envelope:
    """Return the envelope of a plain dataset's manifest, given its dumped body."""
    return Envelope(
        write_id=manifest.write_id,
        writes=manifest.writes,
        retired=manifest.retired,
        keyed_by=manifest.write_id,
        body=json.loads(body),
    )


def dump_envelope(envelope: Envelope) -> bytes:
    """Serialize what is stored as ``_manifest.json``; parsed by :func:`parse_envelope`.

    Raises
    ------
    InvalidWriteError
        It lists so many parts that no reader would take it.
    """
    document: dict[str, Any] = {
        "kind": KIND,
        "version": VERSION,
        "write_id": envelope.write_id,
        "writes": list(envelope.writes),
        "retired": retired_to_json(envelope.retired),
    }
    if envelope.sealed is None:
        document |= dict(envelope.body or {})
    if envelope.encrypted:
        document["encryption"] = {
            "keyed_by": envelope.keyed_by,
            "keys": [dict(key) for key in envelope.wrapped],
            **_encrypted_by(envelope),
        }
        if envelope.column_keys:
            document["encryption"]["column_keys"] = {
                key_name: [dict(key) for key in wrapped]
                for key_name, wrapped in envelope.column_keys.items()
            }
    data = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    if len(data) > untrusted.MAX_JSON:
        raise InvalidWriteError(
            f"the manifest would have {len(data)} bytes, and readers take {untrusted.MAX_JSON}; "
            "set pamola-dwriter.inline-parts lower, so that the parts are listed in a file"
        )
    return data


def _encrypted_by(envelope: Envelope) -> dict[str, str]:
    if envelope.sealed is not None:
        return {"format": "PDW1", "sealed": base64.b64encode(envelope.sealed).decode()}
    return {"format": "parquet", "mac": base64.b64encode(envelope.mac or b"").decode()}


def parse_envelope(data: bytes) -> Envelope:
    """Parse ``_manifest.json``.

    Raises
    ------
    IntegrityError
        It is not a manifest.
    UnsupportedVersionError
        It was written by a newer version of this package.
    """
    try:
        document = untrusted.parse_json(data)
        if document["kind"] != KIND:
            raise IntegrityError("this JSON file is not a dataset manifest")
        _check_version(document["version"])
        write_id = parse_write_id(document["write_id"])
        # A manifest of before datasets could be appended to has but one write.
        writes = tuple(map(parse_write_id, document.get("writes", [write_id])))
        retired = parse_retired(document.get("retired", {}))
        if "encryption" not in document:
            return Envelope(
                write_id=write_id, writes=writes, retired=retired, keyed_by=write_id, body=document
            )
        encryption = document["encryption"]
        if encryption["format"] not in ("PDW1", "parquet"):
            raise UnsupportedVersionError(
                "the manifest is sealed in a format that is not known; update pamola_dwriter"
            )
        shows = encryption["format"] == "parquet"
        data = base64.b64decode(encryption["mac" if shows else "sealed"], validate=True)
        listed = encryption.get("column_keys", {})
        return Envelope(
            write_id=write_id,
            writes=writes,
            retired=retired,
            keyed_by=parse_write_id(encryption.get("keyed_by", write_id)),
            wrapped=tuple(encryption["keys"]),
            column_keys={str(name): tuple(wrapped) for name, wrapped in listed.items()},
            **({"body": document, "mac": data} if shows else {"sealed": data}),
        )
    except DAMAGED:
        raise IntegrityError("the manifest is damaged: it is not the JSON we write") from None


def _check_version(version: object) -> None:
    if type(version) is int and version == VERSION:
        return
    named = f"version {version!r}" if len(repr(version)) < _LONGEST_SHOWN else "its version"
    raise UnsupportedVersionError(f"manifest {named} is not known; update pamola_dwriter")


def shown_body(envelope: Envelope) -> bytes:
    """Return what the ``mac`` of a manifest that shows authenticates: all but the wrapped keys."""
    document = json.loads(dump_envelope(replace(envelope, mac=None, sealed=None)))
    return canonical({name: each for name, each in document.items() if name != "encryption"})
