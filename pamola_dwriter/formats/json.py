"""JSON: the rows of a file as one array, which every JSON reader takes whole."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from pamola_dwriter.formats.jsonl import JsonLinesSerializer


class JsonSerializer(JsonLinesSerializer):
    """One JSON array of an object for each row, a line each; all else is as in JSON Lines.

    A reader has to parse the whole file at once: prefer JSON Lines for what is large.
    """

    _name = "json"

    def _join(self, batches: Iterable[bytes]) -> Iterable[bytes]:
        before = b"[\n"
        for (
            lines
        ) in batches:  # there is no line break but at their ends: JSON escapes those in text
            yield before + lines[:-1].replace(b"\n", b",\n")
            before = b",\n"
        yield b"[]\n" if before == b"[\n" else b"\n]\n"

    def _split(self, data: pa.Buffer) -> pa.Buffer:
        return pa.py_buffer(data.to_pybytes()[2:-2].replace(b",\n", b"\n"))
