"""Packages that extend this one: really installed, or as far as an interpreter can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def install(package: Path, folder: Path) -> Path:
    """Let pip install the package at a path into a folder of its own; return the folder."""
    # Without isolation the build needs no network: hatchling is one of the test dependencies.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder, package]
    subprocess.run(command, check=True)
    return folder


def path_with(folder: Path) -> str:
    """Return a PYTHONPATH on which the packages of `folder` are installed."""
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


def run(program: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process where the packages of `folder` are installed."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path_with(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def offer(folder: Path, package: str, group: str, name: str, value: str) -> None:
    """Let a package offer an entry point, as far as an interpreter can tell."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
