"""What the README shows, runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pamola_dwriter import DataWriter
from pamola_dwriter.cli import main

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[int, str]]:
    """Return each fenced block of a language, with its line number."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [(TEXT.count("\n", 0, match.start(1)), match.group(1)) for match in found]


def commands() -> list[list[str]]:
    """Return the arguments of each ``$ pamola-dwriter`` of the console blocks."""
    joined = "\n".join(block for _, block in blocks("console")).replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)[2:]
        for line in joined.splitlines()
        if line.startswith("$ pamola-dwriter")
    ]


# What Dask itself uses of pandas when it reads Parquet.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")
def test_every_block_and_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks run in order in one namespace, and then the commands, on what they made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PII_KEY", "replaced by the first block that needs it")
    namespace: dict[str, Any] = {"__name__": "readme"}
    ran = 0
    for line, source in blocks("python"):
        # Blank lines first, so that a traceback names the line of the README.
        exec(compile("\n" * line + source, str(README), "exec"), namespace)  # noqa: S102
        ran += 1
    assert ran > 5
    for arguments in commands():
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (arguments, result.output)
        ran += 1
    assert {arguments[0] for arguments in commands()} == set(main.commands)
    assert ran == len(blocks("python")) + len(commands())


def test_links_within_the_page_lead_somewhere() -> None:
    """Every ``#anchor`` is a heading, and every relative link a file."""
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        exists = link[1:] in anchors if link.startswith("#") else (README.parent / link).exists()
        assert exists, link


def test_the_table_of_exit_codes_is_that_of_the_help() -> None:
    """README and ``--help`` list the same exit codes."""
    shown = CliRunner().invoke(main, ["--help"]).output
    in_help = re.findall(r"^\s+(\d+)  +(\w+)", shown, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \| (\w+)", TEXT, re.MULTILINE) == in_help


RAW = bytes(range(32))
PASSPHRASE = "grüner Tee am Morgen"


def unwrap(wrapped: dict[str, Any], write_id: str) -> bytes:
    """Unwrap a dataset key as the section "Wrapped keys" says, with nothing of the package."""
    parameters = wrapped["parameters"]
    salt, nonce, ciphertext = (
        base64.b64decode(parameters[name], validate=True)
        for name in ("salt", "nonce", "ciphertext")
    )
    if wrapped["method"] == "hkdf-sha256":
        identity = HKDF(SHA256(), 32, None, b"pamola_dwriter key id v1").derive(RAW)
        assert wrapped["key_id"] == "raw:" + identity[:8].hex()
        key = HKDF(SHA256(), 32, salt, b"pamola_dwriter wrap v1").derive(RAW)
    else:
        assert (wrapped["method"], wrapped["key_id"]) == ("argon2id", "passphrase")
        key = Argon2id(
            salt=salt,
            length=32,
            iterations=parameters["iterations"],
            lanes=parameters["lanes"],
            memory_cost=parameters["memory_kib"],
        ).derive(PASSPHRASE.encode())
    return AESGCM(key).decrypt(nonce, ciphertext, f"pamola_dwriter.dataset:{write_id}".encode())


def split(sealed: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Return header, prefix and stream of a sealed file."""
    assert sealed[:4] == b"PDW1"
    end = 8 + int.from_bytes(sealed[4:8], "big")
    return json.loads(sealed[8:end]), sealed[:end], sealed[end:]


def open_stream(stream: bytes, prefix: bytes, dataset_key: bytes) -> bytes:
    """Open a stream as the section "The sealed format" says, with nothing of the package."""
    size = json.loads(prefix[8:]).get("segment", 1_048_576)
    assert stream[0] == 0x28
    salt, nonce_prefix = stream[1:33], stream[33:40]
    aes = AESGCM(HKDF(SHA256(), 32, salt, prefix).derive(dataset_key))
    count = -(-len(stream) // size)
    plain = b""
    for i in range(count):
        nonce = nonce_prefix + i.to_bytes(4, "big") + bytes([i == count - 1])
        plain += aes.decrypt(nonce, stream[i * size or 40 : (i + 1) * size], None)
    assert count == -(-(len(plain) + 40) // (size - 16))
    assert len(stream) == 40 + len(plain) + 16 * count
    return plain


@pytest.mark.parametrize("which", [0, 1], ids=["raw", "passphrase"])
def test_the_page_is_enough_to_open_a_dataset(tmp_path: Path, which: int) -> None:
    """A reader made from the README alone opens manifest and parts, of one and many segments."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(400_000)})
    result = DataWriter(tmp_path).write_dataframe(
        frame,
        "x",
        "parquet",
        single_file=False,
        write_index=False,
        encryption_key=[RAW, PASSPHRASE],
    )
    shown = json.loads((result.path / "_manifest.json").read_bytes())
    assert (shown["kind"], shown["version"]) == ("pamola_dwriter.dataset", 1)
    assert shown["encryption"]["format"] == "PDW1"
    write_id = shown["write_id"]
    key = unwrap(shown["encryption"]["keys"][which], write_id)
    header, prefix, stream = split(base64.b64decode(shown["encryption"]["sealed"]))
    assert header == {"kind": "manifest", "path": "_manifest.json", "write_id": write_id}
    body = json.loads(open_stream(stream, prefix, key))
    assert pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["schema"]))).names[0] == "x"
    (part,) = body["parts"]
    stored = (result.path / part["path"]).read_bytes()
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (part["sha256"], part["size_bytes"])
    header, prefix, stream = split(stored)
    expected = {"kind": "part", "path": part["path"], "write_id": write_id, "partition": 0}
    expected |= {"segment": 65_536}
    assert header == expected
    assert prefix[8:] == json.dumps(expected, sort_keys=True, separators=(",", ":")).encode()
    plain = open_stream(stream, prefix, key)
    assert len(plain) == part["plain_bytes"] > 2**21
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(plain)), frame)


def test_the_page_is_enough_to_open_a_single_file(tmp_path: Path) -> None:
    """A reader made from the README alone opens a single file."""
    result = DataWriter(tmp_path).write_dataframe(
        pd.DataFrame({"x": [1, 2]}), "größe", encryption_key=[RAW, PASSPHRASE]
    )
    header, prefix, stream = split(result.path.read_bytes())
    assert (header["kind"], header["path"]) == ("artifact", "größe.csv.pdw")
    key = unwrap(header["keys"][0], header["write_id"])
    assert open_stream(stream, prefix, key) == b'"x"\n1\n2\n'
