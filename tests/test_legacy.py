"""Files of pamola-core's mode ``simple``, made by pamola-core itself (fixtures/make_legacy.py)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pamola_dwriter import DataWriter, decrypt
from pamola_dwriter.cli import main
from pamola_dwriter.envelope import simplefile
from pamola_dwriter.envelope.simplefile import open_simple
from pamola_dwriter.errors import (
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    TargetExistsError,
    WrongKeyError,
)

LEGACY = Path(__file__).parent / "fixtures/legacy"
WORDS = "correct horse battery"
KEYS = {"words": WORDS, "hex": "5eed" * 16, "umlaut": "Schlüssel 🔑"}


@pytest.mark.parametrize("name", KEYS)
def test_what_pamola_core_encrypted(name: str, tmp_path: Path) -> None:
    """A file opens with the very text of its key, be it words, hex digits or beyond ASCII."""
    (made,) = decrypt(
        LEGACY / f"{name}.simple",
        tmp_path / "plain.txt",
        encryption_key=KEYS[name],
        legacy_simple=True,
    )
    assert made.read_text() == f"sealed with {name}"


def test_what_its_writer_wrote(tmp_path: Path) -> None:
    """Frames and documents of its DataWriter come back; so does an empty file."""
    outputs = {}
    for name in ("frame.csv", "dictionary.json", "empty"):
        source, outputs[name] = LEGACY / f"{name}.simple", tmp_path / name
        decrypt(source, outputs[name], encryption_key=WORDS, legacy_simple=True)
    frame = pd.read_csv(outputs["frame.csv"])
    assert frame.to_dict("list") == {"id": [1, 2, 3], "name": ["Ann", "Bob", "Cy"]}
    assert json.loads(outputs["dictionary.json"].read_text()) == {"answer": 42}
    assert outputs["empty"].read_bytes() == b""


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from a variable, a file or the prompt, as its text: hex digits stay text."""
    monkeypatch.setenv("OLD_KEY", KEYS["hex"])
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(KEYS["hex"] + "\n")
    for number, reference in enumerate(("env:OLD_KEY", f"file:{tmp_path / 'key'}", "prompt")):
        target = tmp_path / str(number)
        options = ["--legacy-simple", "--encryption-key", reference]
        command = ["decrypt", str(LEGACY / "hex.simple"), str(target), *options]
        done = CliRunner().invoke(main, command, input=KEYS["hex"] + "\n")
        assert done.exit_code == 0, done.output
        assert target.read_text() == "sealed with hex"
        assert KEYS["hex"] not in done.output
    twice = ["--legacy-simple", *("--encryption-key", "env:OLD_KEY") * 2]
    done = CliRunner().invoke(main, ["decrypt", str(LEGACY / "hex.simple"), "x", *twice])
    assert (done.exit_code, "give --encryption-key once" in done.output) == (2, True)


def test_a_wrong_key_or_altered_content_leaves_nothing(tmp_path: Path) -> None:
    """Both are the same error, which nothing is written before."""
    altered = json.loads((LEGACY / "words.simple").read_text())
    data = bytearray(base64.b64decode(altered["data"]))
    data[0] ^= 1
    altered["data"] = base64.b64encode(data).decode()
    (tmp_path / "altered").write_text(json.dumps(altered))
    attempts = [(LEGACY / "words.simple", "another text"), (tmp_path / "altered", WORDS)]
    for source, key in attempts:
        with pytest.raises(WrongKeyError, match=r"^the given key does not open this$"):
            decrypt(source, tmp_path / "out", encryption_key=key, legacy_simple=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["altered"]


def test_misuse_says_what_to_change(tmp_path: Path) -> None:
    """Another kind of file, key or target is refused, and nothing is overwritten."""
    source = LEGACY / "words.simple"
    (tmp_path / "there").write_text("mine")
    with pytest.raises(TargetExistsError):
        decrypt(source, tmp_path / "there", encryption_key=WORDS, legacy_simple=True)
    for key, match in ((None, "the text that was"), ("", "empty"), ("env:NOT_SET_1", "not set")):
        with pytest.raises(InvalidKeyError, match=match):
            decrypt(source, tmp_path / "out", encryption_key=key, legacy_simple=True)
    with pytest.raises(IntegrityError, match="not one JSON object"):
        decrypt(tmp_path / "there", tmp_path / "out", encryption_key=WORDS, legacy_simple=True)
    dataset = dd.from_pandas(pd.DataFrame({"x": [1, 2]}), npartitions=2)
    path = DataWriter(tmp_path / "task").write_dataframe(dataset, "d", "csv").path
    with pytest.raises(InvalidTargetError, match="single files"):
        decrypt(path, tmp_path / "out", encryption_key=WORDS, legacy_simple=True)
    assert (tmp_path / "there").read_text() == "mine"


STORED = json.loads((LEGACY / "words.simple").read_text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4
)


@pytest.mark.parametrize("reference", ["awskms:alias/x", "vault:x"])
def test_keys_that_are_no_text(reference: str, tmp_path: Path) -> None:
    """A key service never is the text of a key: it is refused, not tried as a password."""
    options = ["--legacy-simple", "--encryption-key", reference]
    command = ["decrypt", str(LEGACY / "hex.simple"), str(tmp_path / "out"), *options]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, "env:NAME, file:PATH or prompt" in done.output) == (2, True)


def test_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    """What a terminal of another encoding typed is our error, which does not carry the text."""
    with pytest.raises(InvalidKeyError, match="UTF-8") as caught:
        decrypt(
            LEGACY / "words.simple",
            tmp_path / "out",
            encryption_key="pass\udcffword",
            legacy_simple=True,
        )
    assert caught.value.__cause__ is None
    assert "word" not in str(caught.value)


def test_more_data_than_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data beyond the cipher's limit, lowered here, is refused before any key is derived."""
    monkeypatch.setattr(simplefile, "_MOST_DATA", 16)
    with pytest.raises(IntegrityError, match="another size"):
        open_simple((LEGACY / "words.simple").read_bytes(), WORDS.encode())


@settings(deadline=None, max_examples=60)
@given(field=st.sampled_from(sorted(STORED)), value=JSON)
def test_hostile_fields(field: str, value: Any) -> None:
    """Whatever stands in a field, only our errors come out, and a costly key is not derived."""
    try:
        opened = open_simple(json.dumps({**STORED, field: value}).encode(), WORDS.encode())
    except (IntegrityError, WrongKeyError):
        return
    assert opened == b"sealed with words"


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=200))
def test_hostile_bytes(stored: bytes) -> None:
    """What is no such file is said to be none."""
    for hostile in (stored, b"[" * 100_000, json.dumps({**STORED, "iterations": 10**9}).encode()):
        with pytest.raises(IntegrityError):
            open_simple(hostile, b"key")


def test_bytes_as_key(tmp_path: Path) -> None:
    """A key of bytes is stretched as it is, as pamola-core does."""
    decrypt(
        LEGACY / "umlaut.simple",
        tmp_path / "out",
        encryption_key=KEYS["umlaut"].encode(),
        legacy_simple=True,
    )
    assert (tmp_path / "out").read_text() == "sealed with umlaut"
