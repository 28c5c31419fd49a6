"""The notebook server of a stack: JupyterLab over HTTPS, with a token that is in a file."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deploy.local.certificates import Certificates
from deploy.local.processes import (
    HOST,
    ServerStartError,
    kill_group,
    on_free_ports,
    spawn,
    wait_until,
)

_ASK_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """How the notebook server is started.

    Attributes
    ----------
    notebooks : Path
        What it shows, and where kernels begin.
    run, logs : Path
        Its own files, and the folder of ``notebook.log``.
    tls : Certificates
    token : Path
        A file; a command line is readable by every user.
    """

    notebooks: Path
    run: Path
    logs: Path
    tls: Certificates
    token: Path

    def start(self, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], str]:
        """Start it, wait until it answers, and return it and where it listens.

        Raises
        ------
        ServerStartError
            It was not ready after :data:`processes.START_SECONDS`.
        """
        log = self.logs / "notebook.log"

        def start_on(ports: tuple[int, ...]) -> tuple[subprocess.Popen[bytes], str]:
            address = f"https://{HOST}:{ports[0]}"
            process = spawn(self._command(ports[0]), log, {**environment, **self._environment()})
            try:
                wait_until(lambda: is_ready(address, self.tls), "JupyterLab", process, log)
            except BaseException:
                kill_group(process)
                raise
            return process, address

        return on_free_ports(1, start_on, log)

    def _command(self, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "jupyterlab", "--no-browser"),
            *(f"--ip={HOST}", f"--port={port}", "--ServerApp.port_retries=0"),
            *(f"--certfile={self.tls.cert}", f"--keyfile={self.tls.key}"),
            f"--ServerApp.root_dir={self.notebooks}",
            # It refuses to run as root without.
            *(["--allow-root"] if os.geteuid() == 0 else []),
        ]

    def _environment(self) -> dict[str, str]:
        """Settings of other servers of this user are left alone, and do not change this one."""
        own = self.run / "jupyter"
        folders = {f"JUPYTER_{what}_DIR": str(own) for what in ("CONFIG", "DATA", "RUNTIME")}
        return {"JUPYTER_TOKEN_FILE": str(self.token), **folders}


def check_installed() -> None:
    """Raise ServerStartError, with what to install, if there is no notebook server."""
    if find_spec("jupyterlab") is None:
        raise ServerStartError(
            "jupyterlab is not installed; install the 'lab' extra: pip install -e '.[lab]', "
            "or go without: --no-notebook"
        )


def is_ready(address: str, tls: Certificates, token: str | None = None) -> bool:
    """Whether the server answers, and lets in whoever has the token, if one is given."""
    request = urllib.request.Request(f"{address}/api/status" if token else f"{address}/api")
    if token:
        request.add_header("Authorization", f"token {token}")
    trust = ssl.create_default_context(cafile=tls.ca)
    try:
        with urllib.request.urlopen(request, timeout=_ASK_SECONDS, context=trust):
            return True
    except OSError:
        return False
