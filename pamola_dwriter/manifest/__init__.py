"""The manifest: the one file whose appearance commits a dataset.

A plain dataset's manifest is readable JSON. An encrypted one shows only what is needed to open
it (write id, wrapped keys) and holds everything else sealed under the dataset key; where only some
columns are encrypted, it shows itself, and is authenticated. These modules are pure: bytes in,
bytes out. Wrapping keys and storing files happen elsewhere.
"""

from __future__ import annotations

from pamola_dwriter.manifest.binding import checksum, key_context, part_key_context, sealed_header
from pamola_dwriter.manifest.body import dump_body, parse_body
from pamola_dwriter.manifest.nouns import (
    KIND,
    VERSION,
    Envelope,
    Manifest,
    PartTable,
    Retired,
    retained,
    totals,
)
from pamola_dwriter.manifest.parts import MAX_TABLE, dump_parts, parse_parts
from pamola_dwriter.manifest.shown import (
    dump_envelope,
    parse_envelope,
    plain_envelope,
    shown_body,
)

__all__ = [
    "KIND",
    "MAX_TABLE",
    "VERSION",
    "Envelope",
    "Manifest",
    "PartTable",
    "Retired",
    "checksum",
    "dump_body",
    "dump_envelope",
    "dump_parts",
    "key_context",
    "parse_body",
    "parse_envelope",
    "parse_parts",
    "part_key_context",
    "plain_envelope",
    "retained",
    "sealed_header",
    "shown_body",
    "totals",
]
