"""``python -m benchmarks report``: tables and plots of the results that were kept.

All results whose names begin with the same word share a section and a plot. The same files give
the same bytes (the plots with the same Matplotlib), so that a difference is a difference of
results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from benchmarks.measuring import RESULTS, Comparison
from benchmarks.plots import draw
from benchmarks.units import spell

_HEAD = """\
# Results

Made by `python -m benchmarks report` from the JSON files beside it: edit nothing here.

Candidates take turns in one process tree. A ratio is one of medians, in brackets the smallest and
the largest of a round; a target without a unit is a bound of the ratio of medians.
"""
_VERDICTS = {True: "yes", False: "**no**", None: ""}
_GUARANTEES = ("atomic", "encrypted", "checksummed", "retried")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A comparison that was kept, with what it was measured on."""

    comparison: Comparison
    command: str
    measured: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def load(cls, file: Path) -> Result:
        """Read a file.

        Raises
        ------
        click.ClickException
            It is no result of a comparison.
        """
        kept = json.loads(file.read_text())
        if not isinstance(kept, dict) or "figures" not in kept:
            message = f"{file} is no result: keep one there by the --keep of a benchmark"
            raise click.ClickException(message)
        return cls(
            comparison=Comparison.load(file),
            command=kept.get("command", ""),
            **{name: kept[name] for name in ("measured", "machine", "versions")},
        )

    @property
    def group(self) -> str:
        """First word of the name."""
        return self.comparison.name.partition("-")[0]


@click.command()
@click.option(
    "--results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=RESULTS,
    help="Folder with the results; the report is written there.",
)
def report(results: Path) -> None:
    """Write tables and plots of all results that were kept."""
    kept = load_all(results)
    (results / "README.md").write_text(as_markdown(kept))
    for group, members in _groups(kept):
        if drawn := [each.comparison for each in members if each.comparison.peer is not None]:
            draw(drawn, results / f"{group}.svg")
    click.echo(results / "README.md")


def load_all(folder: Path) -> list[Result]:
    """Return all results of a folder, those of a group together.

    Raises
    ------
    click.ClickException
        There are none, or a file is something else.
    """
    results = [Result.load(file) for file in folder.glob("*.json")]
    if not results:
        raise click.ClickException(f"{folder} holds no results: keep one there by --keep")
    return sorted(results, key=lambda result: (result.group, result.comparison.name))


def as_markdown(results: Sequence[Result]) -> str:
    """Return the page of all results, which are in order."""
    sections = [_HEAD]
    for group, members in _groups(results):
        sections.append(f"## {group}\n")
        if any(result.comparison.peer is not None for result in members):
            sections.append(f"![Ratios of {group}]({group}.svg)\n")
        sections.extend(_section(result) for result in members)
    return "\n".join(sections)


def _groups(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    for group, members in groupby(results, key=lambda result: result.group):
        yield group, list(members)


def _section(result: Result) -> str:
    comparison = result.comparison
    parts = [f"### {comparison.title}\n", _figures(comparison)]
    if guarantees := comparison.parameters.get("guarantees"):
        rows = [[name, *(held[each] for each in _GUARANTEES)] for name, held in guarantees.items()]
        parts.append("What holds for what was written, as it was written here:\n")
        parts.append(_table(["", *_GUARANTEES], rows))
    if comparison.remarks:
        rows = [[name, remark] for name, remark in comparison.remarks.items()]
        parts.append(_table(["", "how it was set up"], rows))
    parts.append(_origin(result))
    return "\n".join(parts)


def _figures(comparison: Comparison) -> str:
    aimed = any(comparison.aim(name) for name in comparison.figures)
    head = ["", "median"]
    head += [f"against {comparison.peer}"] if comparison.peer else []
    head += ["target", "reached"] if aimed else []
    written = comparison.parameters.get("written", {})
    head += ["files", "MB"] if written else []
    rows = []
    for name in comparison.figures:
        row = [name, spell(comparison.median(name), comparison.unit)]
        if comparison.peer is not None:
            row.append("" if name == comparison.peer else str(comparison.ratio(name)))
        if aimed:
            row += [comparison.aim(name), _VERDICTS[comparison.reached(name)]]
        if written:
            row += [str(written[name]["files"]), f"{written[name]['bytes'] / 1e6:,.1f}"]
        rows.append(row)
    return _table(head, rows)


def _origin(result: Result) -> str:
    machine = result.machine
    versions = {**result.versions, **result.comparison.parameters.get("versions", {})}
    lines = [f"`{result.command}`\n"] if result.command else []
    count = len(next(iter(result.comparison.figures.values())))
    lines.append(
        f"{count} figure{'' if count == 1 else 's'} each, {result.measured}; {machine['system']}, "
        f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".\n"
    )
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
