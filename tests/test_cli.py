"""The command line: round trips, exit codes, what it prints, and what it must never print."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import click
import dask.dataframe as dd
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pamola_dwriter import errors, layout, read_dataset
from pamola_dwriter.cli import main
from pamola_dwriter.cli.outcome import exit_code
from pamola_dwriter.contracts import VersionConflict
from pamola_dwriter.testing import Fault, inject

KEY = "5eed" * 16
OTHER = "beef" * 16
PASSPHRASE = "correct horse battery"
# What Dask itself uses of pandas when it reads Parquet.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")

ENV = ["--encryption-key", "env:CLI_KEY"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with the two keys in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLI_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", OTHER)
    return tmp_path


def run(*arguments: str | Path, typed: str | None = None) -> Result:
    """Run the program in this process; a key or passphrase in its output fails the test."""
    result = CliRunner().invoke(main, [str(one) for one in arguments], input=typed)
    for secret in (KEY, OTHER, PASSPHRASE):
        assert secret not in result.output
    return result


def write(*arguments: str | Path, name: str = "people", typed: str | None = None) -> Result:
    """Run ``write`` into the task directory ``task``."""
    return run("write", *arguments, "--task-dir", "task", "--name", name, typed=typed)


def error_of(result: Result) -> dict[str, str]:
    """Return the JSON object on stderr, which must be all there is."""
    assert result.stdout == ""
    found: dict[str, str] = json.loads(result.stderr)
    assert set(found) == {"error", "message"}
    return found


def frame(start: int, rows: int = 4) -> pd.DataFrame:
    """Return some rows with text and a gap between integers."""
    numbers = pd.array([*range(start, start + rows - 1), None], dtype="Int64")
    return pd.DataFrame(
        {"id": numbers, "name": [f"né {i}" for i in range(rows)], "land": ["FR", "DE"] * 2}
    )


def make_inputs(kind: str = "csv", files: int = 3) -> pd.DataFrame:
    """Write ``in-0`` to ``in-2`` and return all of their rows."""
    frames = [frame(10 * number) for number in range(files)]
    for number, one in enumerate(frames):
        path = f"in-{number}.{kind}"
        if kind.startswith("csv"):
            one.to_csv(path, index=False)
        elif kind.startswith("jsonl"):
            one.to_json(path, orient="records", lines=True)
        else:
            one.to_parquet(path, index=False)
    return pd.concat(frames, ignore_index=True)


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Compare values, however the missing ones and the text are kept in memory."""
    pd.testing.assert_frame_equal(
        found.astype(object).where(found.notna(), None).reset_index(drop=True),
        expected.astype(object).where(expected.notna(), None),
        check_column_type=False,
    )


def leftovers(root: Path) -> list[str]:
    """Return the files below a task directory."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("key", [[], ENV], ids=["plain", "sealed"])
def test_globs_of_each_input_format_round_trip(kind: str, key: list[str]) -> None:
    """A glob becomes one dataset that shows, verifies and reads back, plain and encrypted."""
    expected = make_inputs(kind)
    written = write("in-*", "--input-format", kind.partition(".")[0], "--json", *key)
    assert written.exit_code == 0, written.output
    facts = json.loads(written.stdout)
    assert facts["rows"] == 12
    assert facts["partitions"] == 3
    assert facts["encrypted"] is bool(key)
    shown = json.loads(run("show", facts["path"], "--json", *key).stdout)
    assert shown["rows"] == 12
    assert shown["checksum"] == facts["checksum"]
    assert shown["writes"] == [facts["write_id"]]
    assert list(shown["columns"]) == ["id", "name", "land"]
    report = json.loads(run("verify", facts["path"], "--json", *key).stdout)
    assert report["parts"] == 3
    options = {"encryption_key": key[1]} if key else {}
    assert_same_rows(read_dataset(facts["path"], **options).compute(), expected)


def test_decrypt_makes_files_that_anything_reads() -> None:
    """What ``decrypt`` leaves is plain Parquet with the values that went in."""
    expected = make_inputs("parquet")
    facts = json.loads(write("in-*.parquet", "--json", *ENV).stdout)
    done = run("decrypt", facts["path"], "plain", "--json", *ENV)
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout)["files"]
    assert len(files) == 3
    assert_same_rows(pd.concat(map(pd.read_parquet, files)), expected)


def test_rotate_exchanges_a_key() -> None:
    """After a rotation the new key opens a dataset, and the one that was revoked does not."""
    expected = make_inputs()
    path = json.loads(write("in-*.csv", "--json", *ENV).stdout)["path"]
    (old,) = json.loads(run("show", path, "--json").stdout)["keys"]
    assert run("rotate", path, *ENV).exit_code == 2
    assert run("rotate", path, *ENV, "--to", "beef" * 16).exit_code == 2
    done = run(
        *("rotate", path, *ENV, "--to", "env:OTHER_KEY", "--revoke", old["key_id"], "--json")
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["revoked"] == [old["key_id"]]
    assert run("verify", path, *ENV).exit_code == 4
    assert_same_rows(read_dataset(path, encryption_key="env:OTHER_KEY").compute(), expected)


def test_a_single_file_shows_verifies_and_decrypts() -> None:
    """One small input becomes one file, which every command takes."""
    expected = make_inputs("parquet", files=1)
    path = json.loads(write("in-0.parquet", "--json", *ENV).stdout)["path"]
    assert path.endswith("people.parquet.pdw")
    shown = json.loads(run("show", path, "--json").stdout)
    assert shown["encrypted"] is True
    assert [key["method"] for key in shown["keys"]] == ["hkdf-sha256"]
    assert json.loads(run("verify", path, "--json", *ENV).stdout)["size_bytes"] > 0
    done = run("decrypt", path, "plain.parquet", *ENV)
    assert done.exit_code == 0, done.output
    assert_same_rows(pd.read_parquet("plain.parquet"), expected)
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)
    assert run("verify", path, *ENV).exit_code == 3


def test_a_plain_single_file_cannot_be_verified() -> None:
    """``verify`` does not pretend to have checked a file that nothing vouches for."""
    make_inputs("csv", files=1)
    path = json.loads(write("in-0.csv", "--json").stdout)["path"]
    assert json.loads(run("show", path, "--json").stdout)["encrypted"] is False
    refused = run("verify", path)
    assert refused.exit_code == 1
    assert "SHA-256" in refused.stderr


def test_options_reach_the_writer() -> None:
    """Format, codec, folders, subdirectory, timestamp and file count are honoured."""
    make_inputs()
    options = ["--format", "csv", "--compression", "gzip", "--partition-on", "land"]
    options += ["--subdir", "a/b", "--timestamp", "--format-options", '{"delimiter": ";"}']
    written = write("in-*.csv", "--json", *options)
    assert written.exit_code == 0, written.output
    facts = json.loads(written.stdout)
    assert re.search(r"task/a/b/people_\d{8}_\d{6}$", facts["path"])
    files = sorted(Path(facts["path"]).glob("land=*/*.csv.gz"))
    assert len(files) == facts["partitions"] == 6
    assert list(pd.read_csv(files[0], sep=";").columns) == ["id", "name"]
    single = json.loads(write("in-*.csv", "--single-file", "yes", "--json").stdout)
    assert single["manifest"] is None


def test_only_an_index_that_says_something_is_kept() -> None:
    """A named index is written by default, and row numbers are not, until asked for."""
    frame(0).set_index("name").to_parquet("named.parquet")
    frame(0).to_parquet("numbers.parquet")
    shown = {}
    for name, more in (("named", []), ("numbers", []), ("numbers", ["--index"])):
        done = write(f"{name}.parquet", "--single-file", "no", *more, "--json")
        assert done.exit_code == 0, done.output
        path = json.loads(done.stdout)["path"]
        shown[name, *more] = list(json.loads(run("show", path, "--json").stdout)["columns"])
    assert "name" in shown["named",]
    assert shown["numbers",] == ["id", "name", "land"]
    assert len(shown["numbers", "--index"]) == 4


def test_show_without_the_key_shows_only_what_opens_it() -> None:
    """The names of columns and the number of rows are not for whoever has only the files."""
    make_inputs()
    path = json.loads(write("in-*.csv", "--json", *ENV).stdout)["path"]
    shown = run("show", path)
    assert shown.exit_code == 0
    assert "hkdf-sha256" in shown.stdout
    assert "land" not in shown.stdout
    assert "rows" not in shown.stdout


def test_prompt_asks_twice_when_writing_and_once_when_reading() -> None:
    """A typed passphrase opens what it sealed, and is not echoed."""
    make_inputs()
    prompt = ["--encryption-key", "prompt"]
    twice = f"{PASSPHRASE}\n{PASSPHRASE}\n"
    written = write("in-*.csv", "--json", *prompt, typed=twice)
    assert written.exit_code == 0, written.output
    path = json.loads(written.stdout)["path"]
    assert run("verify", path, *prompt, typed=f"{PASSPHRASE}\n").exit_code == 0
    assert run("verify", path, *prompt, typed="another passphrase\n").exit_code == 4


def test_any_of_several_keys_opens() -> None:
    """A repeated --encryption-key wraps for each of them."""
    make_inputs()
    Path("other.key").write_text(OTHER)
    Path("other.key").chmod(0o600)
    both = [*ENV, "--encryption-key", "file:other.key"]
    path = json.loads(write("in-*.csv", "--json", *both).stdout)["path"]
    for reference in ("env:CLI_KEY", "env:OTHER_KEY", "file:other.key"):
        assert run("verify", path, "--encryption-key", reference).exit_code == 0


@pytest.mark.parametrize("literal", [KEY, PASSPHRASE, "base64:abc", ""])
@pytest.mark.parametrize("command", ["write", "show", "verify", "decrypt"])
def test_a_literal_key_is_refused_and_not_repeated(command: str, literal: str) -> None:
    """A key on the command line is a usage error, whose message does not hold it."""
    extra = {"write": ["--task-dir", "t", "--name", "n"], "decrypt": ["out"]}.get(command, [])
    refused = run(command, "x", *extra, "--encryption-key", literal, "--json")
    assert refused.exit_code == 2
    assert "process" in error_of(refused)["message"] or "read a command line" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["in-*.csv", "--format", "docx"], 2, "UnknownFormatError"),
        (["in-*.csv", "--compression", "zip"], 2, "InvalidWriteError"),
        (["in-*.csv", "--subdir", "../up"], 2, "InvalidNameError"),
        (["in-*.csv", "--partition-on", "nope"], 2, "InvalidWriteError"),
        (["in-*.csv", "--single-file", "perhaps"], 2, "BadParameter"),
        (["in-*.csv", "--storage-options", "[1]"], 2, "BadParameter"),
        (["in-*.csv", "--storage-options", "@nowhere"], 2, "BadParameter"),
        (["in-*.csv", "--scheduler", "bogus://x"], 2, "BadParameter"),
        (["in-*.csv", "in-0.parquet"], 2, "UsageError"),
        (["notes.txt"], 2, "UsageError"),
        (["bogus://x.csv"], 2, "UsageError"),
        (["nothing-*.csv"], 2, "TargetNotFoundError"),
        ([], 2, "MissingParameter"),
        (["in-*.csv", "--encryption-key", "env:UNSET_KEY"], 4, "InvalidKeyError"),
        (["in-*.csv", "--encryption-key", "file:nowhere"], 4, "InvalidKeyError"),
        (["odd-*.csv"], 1, "WriteFailedError"),
    ],
)
def test_bad_writes(arguments: list[str], code: int, error: str) -> None:
    """Each thing that is wrong with a write has its exit code and error, and leaves nothing."""
    make_inputs()
    make_inputs("parquet", files=1)
    Path("notes.txt").write_text("hello")
    Path("odd-0.csv").write_text("x\n1\n")
    Path("odd-1.csv").write_text("x\nnot a number\n")
    refused = write(*arguments, "--json")
    assert refused.exit_code == code, refused.output
    assert error_of(refused)["error"] == error
    assert leftovers(Path("task")) == []


def test_errors_of_reading() -> None:
    """Wrong path, key, bytes or destination: each has its own exit code, without a traceback."""
    make_inputs()
    path = Path(json.loads(write("in-*.csv", "--json", *ENV).stdout)["path"])
    wrong = ["--encryption-key", "env:OTHER_KEY"]
    assert run("verify", "nowhere").exit_code == 2
    assert run("show", "nowhere").exit_code == 2
    assert error_of(run("verify", path, "--json"))["error"] == "MissingKeyError"
    assert error_of(run("show", path, "--json", *wrong))["error"] == "WrongKeyError"
    assert run("decrypt", path, "out").exit_code == 4
    assert not Path("out").exists()
    assert run("decrypt", path, "in-0.csv", *ENV).exit_code == 5
    part = next(path.glob("part-00001*"))
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    altered = run("verify", path, *ENV)
    assert altered.exit_code == 3
    assert part.name in altered.stderr
    assert "Traceback" not in altered.output


def test_no_overwrite_and_lost_races_exit_with_5() -> None:
    """A target that exists, or was committed by another writer meanwhile, is code 5."""
    make_inputs()
    assert write("in-*.csv").exit_code == 0
    assert error_of(write("in-*.csv", "--no-overwrite", "--json"))["error"] == "TargetExistsError"
    assert write("in-*.csv", "--no-overwrite").exit_code == 5
    assert write("in-*.csv").exit_code == 0
    with inject(Fault("put_if", path=f"*/{layout.MANIFEST}", error=VersionConflict)):
        lost = write("in-*.csv", "--json")
    assert lost.exit_code == 5
    assert error_of(lost)["error"] == "ConcurrentWriteError"


def test_an_unknown_outcome_exits_with_6() -> None:
    """A commit whose reply was lost, and that cannot be read back, is code 6."""
    make_inputs()
    with inject(Fault("put_if", path=f"*/{layout.MANIFEST}", answered=False)):
        assert write("in-*.csv").exit_code == 6


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TargetUnavailableError("x"), 1),
        (errors.SchemaMismatchError("x"), 1),
        (errors.UnsupportedVersionError("x"), 1),
        (RuntimeError("x"), 1),
        (errors.InvalidPathError("x"), 2),
        (errors.UnsupportedDataError("x"), 2),
        (errors.IntegrityError("x"), 3),
        (errors.InsecureTransportError("x"), 4),
        (errors.ConcurrentWriteError("x"), 5),
        (errors.CommitOutcomeUnknownError("x"), 6),
        (errors.RotationIncompleteError("x"), 7),
        (errors.WriteCancelledError("x"), 130),
        (click.Abort(), 130),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    """Every class of error has the documented exit code."""
    assert exit_code(error) == code


@pytest.mark.parametrize("command", [[], ["write"], ["show"], ["verify"], ["decrypt"]])
def test_help_documents_the_exit_codes(command: list[str]) -> None:
    """Each help page lists all exit codes."""
    shown = run(*command, "--help")
    assert shown.exit_code == 0
    listed = re.findall(r"^\s+(\d+)  ", shown.stdout, re.MULTILINE)
    assert listed == ["0", "1", "2", "3", "4", "5", "6", "7", "130"]


def test_quiet_prints_nothing_and_debug_prints_tracebacks() -> None:
    """--quiet is silent on success; --debug shows where an error came from."""
    make_inputs()
    assert write("in-*.csv", "--quiet").output == ""
    assert "Traceback" in run("verify", "nowhere", "--debug").stderr


def test_storage_options_come_from_a_file_and_do_not_show() -> None:
    """@FILE keeps credentials off the command line; a mistake does not repeat them."""
    make_inputs()
    Path("options.json").write_text('{"secret": "hunter2"')
    broken = write("in-*.csv", "--storage-options", "@options.json")
    assert broken.exit_code == 2
    assert "hunter2" not in broken.output
    Path("options.json").write_text('{"skip_instance_cache": true}')
    assert write("in-*.csv", "--storage-options", "@options.json").exit_code == 0


def test_a_url_glob_is_read() -> None:
    """Inputs may stand in any fsspec store."""
    pd.DataFrame({"x": [1, 2]}).to_csv("memory://cli-inputs/a-1.csv", index=False)
    pd.DataFrame({"x": [3]}).to_csv("memory://cli-inputs/a-2.csv", index=False)
    done = write("memory://cli-inputs/a-*.csv", "--json")
    assert json.loads(done.stdout)["rows"] == 3


def program(*arguments: str, code: str = "", **more: Any) -> subprocess.Popen[str]:
    """Start the program as a process of its own, after running some Python `code`."""
    start = ["-c", f"{code}\nfrom pamola_dwriter.cli import main; main()"]
    command = [sys.executable, *(start if code else ["-m", "pamola_dwriter"]), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, **{"stdout": pipe, "stderr": pipe, **more})


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process, and return its exit code, output and errors."""
    with process:
        out, err = process.communicate(timeout=60)
    assert KEY not in out + err
    return process.returncode, out, err


def test_real_processes_round_trip() -> None:
    """``python -m pamola_dwriter`` writes, shows, verifies and decrypts; stdout is JSON alone."""
    make_inputs()
    common = ["--json", *ENV]
    target = ["--task-dir", "task", "--name", "people"]
    code, out, err = finish(program("write", "in-*.csv", *target, *common))
    assert (code, err) == (0, "")
    path = json.loads(out)["path"]
    assert finish(program("verify", path, *common))[0] == 0
    code, out, _ = finish(program("decrypt", path, "plain", *common))
    assert code == 0
    assert len(json.loads(out)["files"]) == 3
    code, out, err = finish(program("verify", path, "--json"))
    assert (code, out) == (4, "")
    assert json.loads(err)["error"] == "MissingKeyError"


SLOW = """
import sys, time
from pamola_dwriter import tasks
put = tasks.put
def slow(*args):
    records = put(*args)
    print("staged", flush=True)
    time.sleep(0.5)
    return records
tasks.put = slow
import dask; dask.config.set(num_workers=1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_write_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM cancel the write, clean up, and exit with 130."""
    make_inputs()
    target = ["--task-dir", "task", "--name", "people"]
    process = program("write", "in-*.csv", *target, *ENV, code=SLOW)
    assert process.stdout
    assert process.stdout.readline() == "staged\n"
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert leftovers(Path("task")) == []


def test_a_terminal_gets_a_bar() -> None:
    """On a real terminal the bar ends with all partitions, rows and bytes."""
    make_inputs()
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    target = ["--task-dir", "task", "--name", "people"]
    process = program("write", "in-*.csv", *target, stderr=follower)
    os.close(follower)
    drawn = _read_all(leader)
    assert finish_without_stderr(process) == 0
    assert re.search(r"\rcommitted, 3 of 3 partitions .*12 rows, .*B(/s)?\r?\n", drawn)


def _read_all(descriptor: int) -> str:
    data = b""
    try:
        while block := os.read(descriptor, 4096):
            data += block
    except OSError:  # what Linux says when the other side of a terminal is closed
        pass
    finally:
        os.close(descriptor)
    return data.decode()


def finish_without_stderr(process: subprocess.Popen[str]) -> int:
    """Wait for a process whose stderr is elsewhere."""
    with process:
        process.communicate(timeout=60)
    return process.returncode


def ddf() -> dd.DataFrame:
    """Return a frame of three partitions."""
    made: dd.DataFrame = dd.from_pandas(pd.DataFrame({"x": range(12)}), npartitions=3)
    return made


@pytest.mark.slow
def test_a_cluster_writes_and_verifies(cluster: Any, pii_key: str) -> None:
    """--scheduler runs the write and the check on real workers, which find the key themselves."""
    make_inputs("parquet")
    key = ["--encryption-key", "env:PII_KEY", "--scheduler", cluster.scheduler_address]
    here = str(Path.cwd())
    done = run(
        "write", f"{here}/in-*.parquet", "--task-dir", f"{here}/task", "--name", "p", "--json", *key
    )
    assert done.exit_code == 0, done.output
    path = json.loads(done.stdout)["path"]
    assert json.loads(run("verify", path, "--json", *key).stdout)["rows"] == 12
    assert pii_key not in done.output
