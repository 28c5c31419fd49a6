"""The pages on running it: what they name is there, and their commands are ones that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main as benchmarks
from deploy.local.__main__ import main as local
from deploy.local.sizing import main as sizing
from pamola_dwriter.cli import main as cli

ROOT = Path(__file__).parents[1]

PAGES = (ROOT / "deploy" / "README.md", ROOT / "deploy" / "incidents.md")
LOCAL = ROOT / "deploy" / "local" / "README.md"
PROGRAMS: dict[tuple[str, ...], click.Command] = {
    ("pamola-dwriter",): cli,
    ("python", "-m", "benchmarks"): benchmarks,
    ("python", "-m", "deploy.local"): local,
    ("python", "-m", "deploy.local.sizing"): sizing,
}


def commands(page: Path) -> list[list[str]]:
    """Return each command of a page that is one of ours, also of a table, taken apart."""
    text = page.read_text()
    shown = re.findall(r"(?ms)^```bash\n(.*?)^```$", text)
    lines = "\n".join(shown).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:pamola-dwriter|python -m) [^`]+)`", text)
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if find(each) is not None]


def find(words: list[str]) -> tuple[str, ...] | None:
    return next((name for name in PROGRAMS if tuple(words[: len(name)]) == name), None)


def parse(command: click.Command, words: list[str]) -> None:
    """Let click take a command's words apart as it would, and run nothing."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        if words == ["--help"]:
            return
        found = command.get_command(context, words[0])
        assert found, words
        parse(found, words[1:])
    else:
        command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", (*PAGES, LOCAL), ids=lambda page: page.stem)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    """Programs, subcommands and options are spelt as they are."""
    found = commands(page)
    assert len(found) >= 3
    for words in found:
        name = find(words)
        assert name
        parse(PROGRAMS[name], words[len(name) :])


def test_a_command_that_there_is_not_is_found() -> None:
    """The check above sees a wrong subcommand and a wrong option."""
    with pytest.raises(AssertionError):
        parse(cli, ["collect", "x"])
    with pytest.raises(click.NoSuchOption):
        parse(cli, ["gc", "x", "--dryrun"])


@pytest.mark.parametrize("page", (*PAGES, LOCAL), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files exist, and headings in them too."""
    for place, heading in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        file = (page.parent / place) if place else page
        assert file.exists(), place
        if heading:
            titles = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in titles}
            assert heading in anchors, heading


def test_the_formula_of_memory_holds_in_its_table() -> None:
    """No row of the page on sizing was above what the formula beside it allows."""
    rows = re.findall(
        r"(?m)^\| (\d+) \| (\d) \| (\d+) to (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$",
        PAGES[0].read_text(),
    )
    assert len(rows) == 6
    for row in rows:
        size, threads, local_start, s3_start, to_local, to_s3, allowed = (
            int(figure.replace(",", "")) for figure in row
        )
        assert abs(0.45 * 1024 + 3 * threads * size - allowed) < 1
        assert max(local_start + to_local, s3_start + to_s3) <= allowed


def test_the_memory_of_a_worker_is_measured() -> None:
    """The command that the table was made with says a line for each store."""
    done = CliRunner().invoke(sizing, ["--rows", "1000"])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"(local|S3) +1 thread.* at the peak = .*", done.output.splitlines()[1])
    assert len(done.output.splitlines()) == 2
