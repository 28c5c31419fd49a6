"""The sealed format: interoperable, seekable, and nothing unauthenticated comes out."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from pamola_dwriter.envelope import (
    MAGIC,
    MAX_HEADER,
    SEGMENT,
    SMALL_SEGMENT,
    SealedHeader,
    SealedReader,
    encode_header,
    open_sealed,
    plain_size,
    read_header,
    seal,
    seal_with,
    sealed_size,
)
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    InvalidKeyError,
    UnsupportedVersionError,
)

KEY = bytes(range(32))
HEADER = {"write_id": "0123456789abcdef", "path": "part-00000", "index": 7}
PREFIX = len(encode_header(HEADER))
FIRST = SEGMENT - 40 - 16
FULL = SEGMENT - 16
BOUNDARIES = [
    0,
    1,
    FIRST - 1,
    FIRST,
    FIRST + 1,
    FIRST + FULL - 1,
    FIRST + FULL,
    FIRST + FULL + 1,
    FIRST + 2 * FULL,
    FIRST + 2 * FULL + 1,
]
PLAIN = random.Random(1).randbytes(FIRST + 3 * FULL + 12345)
SEALED = seal(PLAIN, KEY, HEADER).to_pybytes()

streaming_aead.register()


class Stored:
    """Stored bytes that remember which ranges were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges: list[tuple[int, int]] = []

    def read(self, start: int, end: int) -> bytes:
        self.ranges.append((start, end))
        return self.data[start:end]

    def open(self, key: bytes = KEY) -> SealedReader:
        reader = SealedReader(self.read, len(self.data), key, read_header(self.read))
        self.ranges.clear()
        return reader


def tink_primitive(key: bytes, segment: int = SEGMENT) -> streaming_aead.StreamingAead:
    """Return Tink's own implementation under our raw key."""
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=segment, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    value = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(params=params, key_value=key)
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=value.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    entry = tink_pb2.Keyset.Key(
        key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW
    )
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry])
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


class Sink(io.BytesIO):
    """Keeps its bytes when Tink closes it."""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


@pytest.mark.parametrize("segment", [4096, SMALL_SEGMENT, 2 * SEGMENT])
def test_the_header_may_name_another_segment_size(segment: int) -> None:
    """Tink opens such a stream at that size; we open it, and fetch no more than it takes."""
    header = HEADER | {"segment": segment}
    sealed = seal(PLAIN, KEY, header).to_pybytes()
    prefix = len(encode_header(header))
    assert len(sealed) == sealed_size(len(PLAIN), prefix, segment)
    stream = tink_primitive(KEY, segment).new_decrypting_stream(
        io.BytesIO(sealed[prefix:]), sealed[:prefix]
    )
    assert stream.read() == PLAIN
    assert open_sealed(sealed, KEY) == PLAIN
    stored = Stored(sealed)
    reader = stored.open()
    reader.seek(segment)
    assert reader.read(100) == PLAIN[segment:][:100]
    assert stored.ranges == [(prefix + segment, prefix + 2 * segment)]


@pytest.mark.parametrize("segment", [0, -1, 16, 4095, 2**26 + 1, True, 65536.0, "65536", None])
def test_an_impossible_segment_size_is_refused(segment: object) -> None:
    """Whoever made the header, no buffer of that size is asked for; sealing refuses it too."""
    with pytest.raises(ValueError, match="segment takes an integer from 4096 to 67108864"):
        seal(b"", KEY, {"segment": segment})
    sealed = encode_header(HEADER | {"segment": segment}) + SEALED[PREFIX:]
    with pytest.raises(IntegrityError, match="impossible segment size"):
        open_sealed(sealed, KEY)


def test_another_segment_size_does_not_open() -> None:
    """The header is authenticated, the size in it too."""
    sealed = encode_header(HEADER | {"segment": 2 * SEGMENT}) + SEALED[PREFIX:]
    with pytest.raises(IntegrityError):
        open_sealed(sealed, KEY)


@pytest.mark.parametrize("size", BOUNDARIES)
def test_tink_opens_what_we_seal(size: int) -> None:
    """Tink decrypts our stream at every segment boundary, given the prefix."""
    sealed = seal(PLAIN[:size], KEY, HEADER).to_pybytes()
    stream = tink_primitive(KEY).new_decrypting_stream(io.BytesIO(sealed[PREFIX:]), sealed[:PREFIX])
    assert stream.read() == PLAIN[:size]


@pytest.mark.parametrize("size", BOUNDARIES)
def test_we_open_what_tink_seals(size: int) -> None:
    """We decrypt Tink's stream at every segment boundary, behind our prefix."""
    sink, prefix = Sink(), encode_header(HEADER)
    with tink_primitive(KEY).new_encrypting_stream(sink, prefix) as stream:
        stream.write(PLAIN[:size])
    assert open_sealed(prefix + sink.content, KEY, expect=HEADER) == PLAIN[:size]


@pytest.mark.parametrize(
    "vector", json.loads((Path(__file__).parent / "vectors/sealed_v1.json").read_text("utf-8"))
)
def test_known_answers_never_change(vector: dict[str, Any]) -> None:
    """The vectors on disk are sealed to the same bytes, and opened, by every release."""
    plain = (bytes(range(251)) * (vector["size"] // 251 + 1))[: vector["size"]]
    assert hashlib.sha256(plain).hexdigest() == vector["plaintext_sha256"]
    key, salt, nonce_prefix = (
        bytes.fromhex(vector[name]) for name in ("key", "salt", "nonce_prefix")
    )
    sealed = seal_with(
        plain, key, vector["header"], salt=salt, nonce_prefix=nonce_prefix
    ).to_pybytes()
    assert hashlib.sha256(sealed).hexdigest() == vector["sealed_sha256"]
    assert sealed.hex() == vector.get("sealed", sealed.hex())
    assert encode_header(vector["header"]).hex() == vector["prefix"]
    assert open_sealed(sealed, key, expect=vector["header"]) == plain


@settings(deadline=None)
@given(
    data=st.binary(max_size=300),
    header=st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)
    ),
)
def test_round_trip(data: bytes, header: dict[str, Any]) -> None:
    """Any bytes under any JSON header come back, in the size that was foretold."""
    sealed = seal(data, KEY, header)
    prefix = encode_header(header)
    assert sealed.size == sealed_size(len(data), len(prefix))
    assert plain_size(sealed.size, len(prefix)) == len(data)
    assert open_sealed(sealed, KEY, expect=header) == data


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, pa.py_buffer, lambda b: memoryview(b).cast("I")]
)
def test_any_buffer_is_sealed(wrap: Callable[[bytes], Any]) -> None:
    """Any contiguous buffer is taken as its bytes."""
    assert open_sealed(seal(wrap(b"some buffer bytes..."), KEY, {}), KEY) == b"some buffer bytes..."


def test_sealing_twice_differs() -> None:
    """Salt and nonce prefix are drawn anew by each seal."""
    assert seal(b"same", KEY, {}).to_pybytes() != seal(b"same", KEY, {}).to_pybytes()


@given(size=st.sampled_from(BOUNDARIES) | st.integers(0, 1 << 45), header=st.integers(8, 1 << 20))
def test_sizes_are_inverse(size: int, header: int) -> None:
    """plain_size undoes sealed_size."""
    assert plain_size(sealed_size(size, header), header) == size


@pytest.mark.parametrize(
    "stored", [-(10**9), -1, 0, 10, 55, *(SEGMENT + n for n in range(1, 17)), 2 * SEGMENT + 16]
)
def test_impossible_sizes_are_refused(stored: int) -> None:
    """A size that no sealing makes is an IntegrityError."""
    with pytest.raises(IntegrityError, match="size"):
        plain_size(stored + 100, 100)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN) + 9), st.integers(0, 2 * SEGMENT))))
def test_random_seeks_are_slices(moves: list[tuple[int, int]]) -> None:
    """Every read equals the slice of the plaintext, whatever was read before."""
    reader = Stored(SEALED).open()
    for start, size in moves:
        assert reader.seek(start) == start
        assert reader.read(size) == PLAIN[start : start + size]
        assert reader.tell() == max(start, min(start + size, len(PLAIN))) or start > len(PLAIN)


def test_behaves_as_a_file() -> None:
    """Seek from all three ends, readinto, readall and the end of the file work as in io."""
    reader = Stored(SEALED).open()
    assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
    assert reader.size == reader.seek(0, io.SEEK_END) == len(PLAIN)
    assert (reader.read(), reader.read(5), reader.readinto(bytearray(3))) == (b"", b"", 0)
    assert reader.seek(-10, io.SEEK_END) == len(PLAIN) - 10
    buffer = bytearray(20)
    assert reader.readinto(buffer) == 10
    assert buffer == PLAIN[-10:] + bytes(10)
    assert reader.seek(-5, io.SEEK_CUR) == len(PLAIN) - 5
    assert reader.readall() == PLAIN[-5:]
    with pytest.raises(ValueError, match="negative"):
        reader.seek(-1)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


@pytest.mark.parametrize("step", [1_000, SMALL_SEGMENT, 100_000])
@pytest.mark.parametrize("segment", [SMALL_SEGMENT, SEGMENT])
def test_chunked_sequential_reads_fetch_each_segment_once(segment: int, step: int) -> None:
    """Reading in small steps fetches no byte twice, and asks at most once a step or segment."""
    sealed = seal(PLAIN, KEY, {"segment": segment}).to_pybytes()
    stored = Stored(sealed)
    reader = stored.open()
    assert b"".join(iter(lambda: reader.read(step), b"")) == PLAIN
    start = len(encode_header({"segment": segment}))
    ends = [end for _, end in stored.ranges]
    assert [begin for begin, _ in stored.ranges] == [start + 40, *ends[:-1]]
    assert ends[-1] == len(sealed)
    assert len(ends) <= min(-(-len(PLAIN) // step), -(-(len(sealed) - start) // segment))


@pytest.mark.parametrize(
    ("segment", "kept"), [(SMALL_SEGMENT, 64), (SEGMENT, 4), (2 * SEGMENT, 2), (5 * SEGMENT, 1)]
)
def test_the_last_segments_are_kept(segment: int, kept: int) -> None:
    """Small reads here and there fetch nothing again within 4 MiB, and one more drops the oldest.

    A segment of more than that is kept while there is no other.
    """
    data = PLAIN * 3
    stored = Stored(seal(data, KEY, {"segment": segment}).to_pybytes())
    reader = stored.open()

    def touch(index: int) -> None:
        reader.seek(at := index * segment)
        assert reader.read(9) == data[at : at + 9]

    for index in [*range(kept), *range(kept)]:
        touch(index)
    assert len(stored.ranges) == kept
    touch(kept)
    touch(kept)
    assert len(stored.ranges) == kept + 1
    touch(0)
    assert len(stored.ranges) == kept + 2


def test_opening_is_one_small_read() -> None:
    """Header and stream header come in one request of some KiB."""
    stored = Stored(SEALED)
    SealedReader(stored.read, len(SEALED), KEY, read_header(stored.read))
    assert stored.ranges == [(0, 4096)]


def test_a_long_header_takes_two_more_reads() -> None:
    """A header beyond the first request is completed, and opens."""
    header = {"note": "x" * 10_000}
    stored = Stored(seal(b"data", KEY, header).to_pybytes())
    reader = SealedReader(stored.read, len(stored.data), KEY, read_header(stored.read))
    assert reader.read() == b"data"
    assert len(stored.ranges) == 4


def test_a_seek_fetches_one_segment() -> None:
    """A read inside one segment fetches that segment, and a second one nothing."""
    stored = Stored(SEALED)
    reader = stored.open()
    reader.seek(FIRST + FULL + 5)
    assert reader.read(100) == PLAIN[FIRST + FULL + 5 :][:100]
    start = PREFIX + 2 * SEGMENT
    assert stored.ranges == [(start, start + SEGMENT)]
    reader.read(1000)
    assert len(stored.ranges) == 1


def test_a_run_of_segments_is_one_read() -> None:
    """A read over several segments is one request, without those still held."""
    stored = Stored(SEALED)
    reader = stored.open()
    assert reader.read() == PLAIN
    assert stored.ranges == [(PREFIX + 40, len(SEALED))]
    reader.seek(FIRST + 10)
    reader.read(10)
    stored.ranges.clear()
    reader.seek(10)
    assert reader.read(FIRST + 2 * FULL) == PLAIN[10 : 10 + FIRST + 2 * FULL]
    assert stored.ranges == [
        (PREFIX + 40, PREFIX + SEGMENT),
        (PREFIX + 2 * SEGMENT, PREFIX + 4 * SEGMENT),
    ]


def test_pyarrow_reads_parquet_through_it() -> None:
    """pyarrow reads columns of a sealed Parquet file, pre-buffering from threads."""
    table = pa.table({name: random.Random(name).choices(range(99), k=9999) for name in "abc"})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=1000)
    reader = Stored(seal(sink.getvalue(), KEY, {}).to_pybytes()).open()
    assert pq.read_table(reader, columns=["b"], pre_buffer=True) == table.select(["b"])


def test_threads_share_a_reader() -> None:
    """Concurrent reads each get their own, whole piece of the content."""
    reader, barrier = Stored(SEALED).open(), threading.Barrier(4)

    def work() -> list[bytes]:
        barrier.wait()
        return list(iter(lambda: reader.read(70_001), b""))

    with ThreadPoolExecutor(4) as pool:
        pieces = [f.result() for f in [pool.submit(work) for _ in range(4)]]
    read = sorted(piece for one in pieces for piece in one)
    assert read == sorted(PLAIN[at : at + 70_001] for at in range(0, len(PLAIN), 70_001))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 7), st.integers(0, 8 * 1024), st.booleans())
def test_a_flipped_bit_is_found(bit: int, place: int, late: bool) -> None:
    """One bit changed anywhere, header included, is an error of ours; content an integrity one."""
    damaged = bytearray(seal(PLAIN[:5000], KEY, HEADER).to_pybytes())
    at = place % len(damaged) if late else place % (PREFIX + 40)
    damaged[at] ^= 1 << bit
    kind = UnsupportedVersionError if at == 3 and damaged[3:4].isdigit() else IntegrityError
    with pytest.raises(kind):
        open_sealed(damaged, KEY)


@settings(deadline=None, max_examples=60)
@given(st.integers(PREFIX + 40, len(SEALED) - 1))
def test_a_flipped_bit_spoils_its_segment_alone(at: int) -> None:
    """A damaged segment gives nothing, and its neighbours still open."""
    damaged = bytearray(SEALED)
    damaged[at] ^= 1
    bad = (at - PREFIX) // SEGMENT
    for segment in range(5):
        reader = Stored(bytes(damaged)).open()
        reader.seek(segment * FULL + 1)
        if segment == bad:
            with pytest.raises(IntegrityError, match="does not authenticate"):
                reader.read(10)
            assert reader.tell() == segment * FULL + 1
        else:
            assert reader.read(10) == PLAIN[segment * FULL + 1 :][:10]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, len(SEALED) - 1)
    | st.integers(0, PREFIX + 100)
    | st.sampled_from([PREFIX + n * SEGMENT for n in range(5)])
)
def test_a_truncation_is_found(size: int) -> None:
    """Content cut anywhere, also just after a segment, is an IntegrityError."""
    with pytest.raises(IntegrityError):
        open_sealed(SEALED[:size], KEY)


@pytest.mark.parametrize("extra", [b"\0", bytes(16), bytes(SEGMENT), SEALED])
def test_an_extension_is_found(extra: bytes) -> None:
    """Bytes behind the content are an IntegrityError."""
    with pytest.raises(IntegrityError):
        open_sealed(SEALED + extra, KEY)


def test_the_end_of_a_file_is_authenticated() -> None:
    """A cut after a whole segment cannot pass for the end, not even for a seek past it."""
    for position in (FIRST - 1, FIRST, FIRST + 1, 10**12):
        reader = Stored(SEALED[: PREFIX + SEGMENT]).open()
        reader.seek(position)
        with pytest.raises(IntegrityError, match="does not authenticate"):
            reader.read(10)


def test_no_content_is_content_too() -> None:
    """An empty content is authenticated before it is called empty."""
    sealed = bytearray(seal(b"", KEY, {}).to_pybytes())
    assert open_sealed(sealed, KEY) == b""
    sealed[-1] ^= 1
    with pytest.raises(IntegrityError, match="does not authenticate"):
        open_sealed(sealed, KEY)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (1, 3), (2, 3)])
def test_swapped_segments_are_found(one: int, other: int) -> None:
    """Two segments that change places are an IntegrityError."""
    segments = [SEALED[PREFIX + at :][:SEGMENT] for at in range(0, len(SEALED), SEGMENT)]
    segments[one], segments[other] = segments[other], segments[one]
    with pytest.raises(IntegrityError, match="does not authenticate"):
        open_sealed(SEALED[:PREFIX] + b"".join(segments), KEY)


@pytest.mark.parametrize(
    "edit", [{"index": 8}, {"path": "part-00001"}, {"write_id": None}, {"extra": 1}]
)
def test_a_header_on_another_stream_is_found(edit: dict[str, Any]) -> None:
    """A well-formed header put before a stream that is not its own opens nothing."""
    with pytest.raises(IntegrityError, match="does not authenticate"):
        open_sealed(encode_header(HEADER | edit) + SEALED[PREFIX:], KEY)


def test_another_key_opens_nothing() -> None:
    """The wrong key is told in the same words as damage."""
    with pytest.raises(IntegrityError, match=r"^the content does not authenticate: [a-z, ]+$"):
        open_sealed(SEALED, bytes(32))


@pytest.mark.parametrize(
    "expect", [{"index": 8}, {"index": True}, {"index": 7.0}, {"index": None}, {"absent": None}]
)
def test_an_unexpected_header_is_named_not_shown(expect: dict[str, Any]) -> None:
    """A field other than expected is named, without either value."""
    (name,) = expect
    with pytest.raises(IntegrityError) as caught:
        open_sealed(SEALED, KEY, expect=expect)
    assert str(caught.value) == f"the sealed header has another {name!r} than expected"


def test_expectations_are_compared_as_json() -> None:
    """A tuple is what it becomes in JSON; fields nobody asks for are let pass."""
    header = {"keys": ["a", "b"], "other": 1}
    assert open_sealed(seal(b"x", KEY, header), KEY, expect={"keys": ("a", "b")}) == b"x"


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda tail: MAGIC + tail)
    | st.binary(max_size=200).map(lambda tail: MAGIC + len(tail).to_bytes(4, "big") + tail)
)
def test_garbage_gives_only_our_errors(data: bytes) -> None:
    """Whatever stands in a file, opening it raises an error of ours."""
    with pytest.raises(DataReadError) as caught:
        open_sealed(data, KEY)
    assert type(caught.value) in (IntegrityError, UnsupportedVersionError)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"text"',
        b"{} ",
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\u0061"}',
        b'{"a":' + b"1" * 9999 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "{}".encode("utf-16"),
        b'{"a":"\xff"}',
        b"[" * MAX_HEADER,
    ],
)
def test_only_our_spelling_of_json_is_a_header(text: bytes) -> None:
    """Hostile or merely different JSON is an IntegrityError."""
    data = MAGIC + len(text).to_bytes(4, "big") + text + bytes(100)
    with pytest.raises(IntegrityError, match="header is damaged"):
        read_header(Stored(data).read)


def test_an_endless_header_is_not_fetched() -> None:
    """A header that claims gigabytes is refused before they are asked for."""
    stored = Stored(MAGIC + b"\xff\xff\xff\xff" + bytes(100))
    with pytest.raises(IntegrityError, match="impossible"):
        read_header(stored.read)
    assert stored.ranges == [(0, 4096)]


def test_a_header_of_the_largest_size_is_read() -> None:
    """The limit itself fits, and one byte more is refused when sealing."""
    fields = {"n": "x" * (MAX_HEADER - len('{"n":""}'))}
    assert open_sealed(seal(b"x", KEY, fields), KEY, expect=fields) == b"x"
    with pytest.raises(ValueError, match="at most"):
        seal(b"x", KEY, {"n": fields["n"] + "x"})


def test_a_newer_version_is_told_apart() -> None:
    """Magic with another digit asks for an update; anything else is no sealed file."""
    with pytest.raises(UnsupportedVersionError, match="update"):
        read_header(Stored(b"PDW2" + bytes(100)).read)
    with pytest.raises(IntegrityError, match="not a sealed file"):
        read_header(Stored(b"PAR1" + bytes(100)).read)


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-1], lambda d: d + b"x"])
def test_a_short_fetch_is_found(change: Callable[[bytes], bytes]) -> None:
    """A store that returns other sizes than asked for is an IntegrityError, never a short read."""
    header = read_header(Stored(SEALED).read)
    reader = SealedReader(lambda a, b: change(SEALED[a:b]), len(SEALED), KEY, header)
    with pytest.raises(IntegrityError):
        reader.read(10)


def test_another_stream_header_is_found() -> None:
    """A stream header of another length is no stream of this format."""
    damaged = bytearray(SEALED)
    damaged[PREFIX] = 41
    with pytest.raises(IntegrityError, match="does not authenticate"):
        Stored(bytes(damaged)).open()


def test_malformed_arguments_are_refused() -> None:
    """Keys, salts and nonces of another size, and headers that are not JSON, are refused."""
    with pytest.raises(InvalidKeyError, match="32 bytes"):
        seal(b"", b"short", {})
    with pytest.raises(ValueError, match="salt"):
        seal_with(b"", KEY, {}, salt=b"", nonce_prefix=bytes(7))
    with pytest.raises(ValueError, match="JSON"):
        seal(b"", KEY, {"a": float("nan")})


def test_reprs_show_no_bytes() -> None:
    """A header shows its fields, a reader neither key nor content."""
    header = read_header(Stored(SEALED).read)
    assert repr(header) == f"SealedHeader(fields={header.fields!r})"
    assert header == SealedHeader(HEADER, SEALED[:PREFIX])
    assert "SealedReader object" in repr(Stored(SEALED).open())
