"""The smallest workbook that Excel opens: one sheet in a zip of XML, made and read in memory.

Not with openpyxl, which rounds doubles to 16 digits, cuts long texts without a word, and keeps
the sheet in a temporary file while it writes: the plain rows of an encrypted dataset would lie
on the disk of the worker, and stay there if it died.
"""

from __future__ import annotations

import io
import itertools
import string
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, BinaryIO
from xml.parsers import expat
from xml.sax.saxutils import escape

import pyarrow as pa

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.cells import Cells

MAX_ROWS = 1_048_576
MAX_COLUMNS = 16_384

_SHEET = "xl/worksheets/sheet1.xml"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
    'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/>'
    f'<Override PartName="/{_SHEET}" ContentType="{_TYPE}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
    "</Relationships>",
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><numFmts count="2">'
    '<numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/>'
    '<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"/></numFmts>'
    '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="3"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '</cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/>'
    "</cellStyles></styleSheet>",
}
_CELLS = {
    # An inline string is never taken for a formula, a number or an error.
    "text": (' t="inlineStr"><is><t xml:space="preserve">', "</t></is></c>"),
    "number": ("><v>", "</v></c>"),
    "bool": (' t="b"><v>', "</v></c>"),
    "date": (' s="1"><v>', "</v></c>"),
    "time": (' s="2"><v>', "</v></c>"),
}
_WIDTHS = {"date": 12, "time": 25}
"""In characters."""
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, OSError, RuntimeError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)


def write_workbook(names: Sequence[str], columns: Sequence[Cells]) -> bytes:
    """Return a workbook whose first row holds `names`; the same input gives the same bytes.

    Raises
    ------
    UnsupportedDataError
        Its sheet would be larger than 2 GiB.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in _PARTS.items():
            archive.writestr(_entry(path), _XML + text)
        size = 0
        with archive.open(_entry(_SHEET), "w") as sheet:
            for piece in _sheet(names, columns):
                data = piece.encode()
                size += len(data)
                if size > zipfile.ZIP64_LIMIT:  # beyond it Excel offers to repair the file
                    raise UnsupportedDataError(
                        "a sheet of Excel cannot be larger than 2 GiB; write smaller partitions"
                    )
                sheet.write(data)
    return buffer.getvalue()


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path)  # of 1980: the clock is no part of the output
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _sheet(names: Sequence[str], columns: Sequence[Cells]) -> Iterator[str]:
    letters = column_letters(len(names))
    yield f'{_XML}<worksheet xmlns="{_MAIN}">{_widths(columns)}<sheetData>'
    yield _row(1, letters, (("text", name) for name in names))
    kinds = [column.kind for column in columns]
    for number, values in enumerate(zip(*(c.values for c in columns), strict=True), start=2):
        yield _row(number, letters, zip(kinds, values, strict=True))
    yield "</sheetData></worksheet>"


def _widths(columns: Sequence[Cells]) -> str:
    """Make dates wide enough to be shown: Excel puts #### into columns that are too narrow."""
    wide = "".join(
        f'<col min="{number}" max="{number}" width="{_WIDTHS[column.kind]}" customWidth="1"/>'
        for number, column in enumerate(columns, start=1)
        if column.kind in _WIDTHS
    )
    return f"<cols>{wide}</cols>" if wide else ""


def _row(number: int, letters: Sequence[str], cells: Iterable[tuple[str, str | None]]) -> str:
    parts = [f'<row r="{number}">']
    for letter, (kind, value) in zip(letters, cells, strict=True):
        if value is not None:
            start, end = _CELLS[kind]
            parts.append(f'<c r="{letter}{number}"{start}{escape(value)}{end}')
    return "".join(parts) + "</row>"


def column_letters(count: int) -> list[str]:
    """Return what Excel calls its first columns: A to Z, AA to ZZ, AAA to XFD."""
    letters = (
        "".join(name)
        for length in (1, 2, 3)
        for name in itertools.product(string.ascii_uppercase, repeat=length)
    )
    return list(itertools.islice(letters, count))


def read_workbook(file: BinaryIO, positions: Sequence[int]) -> list[list[str | None]]:
    """Return the cells of some columns, found by their positions; the header comes first.

    Raises
    ------
    pyarrow.ArrowInvalid
        This is no workbook that :func:`write_workbook` made.
    """
    reader = _SheetReader(positions)
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_SHEET) as sheet:
            reader.parse(sheet)
    except _DAMAGE:
        raise pa.ArrowInvalid("not a workbook that this package wrote") from None
    return reader.columns


class _SheetReader:
    """Collects the texts of some columns, row by row, with None for blank cells."""

    def __init__(self, positions: Sequence[int]) -> None:
        letters = column_letters(MAX_COLUMNS)
        self.columns: list[list[str | None]] = [[] for _ in positions]
        self._by_letters = {
            letters[position]: column
            for position, column in zip(positions, self.columns, strict=True)
        }
        self._column: list[str | None] | None = None
        self._text: list[str] = []

    def parse(self, sheet: IO[bytes]) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._text.append
        parser.EndElementHandler = self._end
        parser.ParseFile(sheet)

    def _refuse(self, *declaration: object) -> None:
        # Entities are how a few bytes of XML become gigabytes; we write none.
        raise ValueError("a document type")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "row":
            for column in self.columns:
                column.append(None)
        elif tag == "c":
            self._column = self._by_letters.get(attributes["r"].rstrip(string.digits))
            self._text.clear()

    def _end(self, tag: str) -> None:
        if tag == "c" and self._column is not None:
            self._column[-1] = "".join(self._text)
