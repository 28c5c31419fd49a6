"""Arrow IPC files, which are Feather version 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from pamola_dwriter.formats.casting import check_columns, conform, selected
from pamola_dwriter.formats.compression import check_spec, codec_name
from pamola_dwriter.spec import FormatSpec

_DEFAULT = "lz4"
_CODECS = ("lz4", "zstd", "none")


class ArrowSerializer:
    """One Arrow IPC file for each table; buffers are compressed inside, with lz4 by default.

    It holds every type that Arrow has. Uncompressed files can be mapped into memory as they are
    (``pyarrow.memory_map``). It takes no options.
    """

    columnar = True

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        return check_spec(spec, [], _DEFAULT, _CODECS)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        check_columns(schema, "arrow", self._round_trip)

    def extension(self, spec: FormatSpec) -> str:
        """Return ``arrow``."""
        return "arrow"

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`."""
        codec = codec_name(spec.compression, _DEFAULT, _CODECS)
        options = pa.ipc.IpcWriteOptions(compression=None if codec == "none" else codec)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            # The file format has room for one dictionary a column, not for one a chunk.
            writer.write_table(table.unify_dictionaries())
        return sink.getvalue()

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`), reading only their bytes."""
        wanted = selected(schema, columns)
        # To Arrow no fields at all are all of them; and one must tell the number of rows.
        fields = [schema.get_field_index(name) for name in wanted.names] or [0]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        with pa.ipc.open_file(file, options=options) as reader:
            table = reader.read_all()
        # What is read is used as it is: an offset out of bounds would end the whole process.
        table.validate(full=True)
        return conform(table, wanted)

    def _round_trip(self, table: pa.Table) -> None:
        data = self.dumps(table, FormatSpec(name="arrow"))
        self.load(pa.BufferReader(data), table.schema, None, FormatSpec(name="arrow"))
