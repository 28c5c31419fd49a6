"""``python -m benchmarks``: each benchmark is a command."""

from __future__ import annotations

import click

from benchmarks.compile import compile_
from benchmarks.finalize import finalize
from benchmarks.job import job
from benchmarks.json_append import json_append
from benchmarks.memory import memory
from benchmarks.peers.command import peers
from benchmarks.plugin_cost import plugin_cost
from benchmarks.publish import publish
from benchmarks.read import read
from benchmarks.report import report
from benchmarks.scheduler import scheduler
from benchmarks.sealing import sealing
from benchmarks.stages import stages
from benchmarks.write import write


@click.group()
def main() -> None:
    """Measure the writer; see benchmarks/README.md."""


main.add_command(compile_)
main.add_command(finalize)
main.add_command(job)
main.add_command(json_append)
main.add_command(memory)
main.add_command(peers)
main.add_command(plugin_cost)
main.add_command(publish)
main.add_command(read)
main.add_command(report)
main.add_command(scheduler)
main.add_command(sealing)
main.add_command(stages)
main.add_command(write)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
