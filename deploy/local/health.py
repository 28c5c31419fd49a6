"""Ask each server of a stack whether it is well, as its clients would: over TLS, with the keys."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deploy.local import notebook
from deploy.local.dask_processes import connect
from deploy.local.folder import Folder
from deploy.local.links import s3_server
from deploy.local.state import Server, State

_ASK_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a server answered; ``wrong`` is empty if it is well."""

    server: Server
    wrong: str


def check(folder: Folder, state: State) -> list[Health]:
    """Ask every server that was started, in that order."""
    return [Health(server=each, wrong=_ask(folder, state, each)) for each in state.servers]


def _ask(folder: Folder, state: State, server: Server) -> str:
    if server.process() is None:
        return "its process has ended"
    try:
        return _CHECKS[server.name](folder, state, server.address)
    except OSError as error:  # nobody listens, or nobody whom we trust
        return f"does not answer ({type(error).__name__})"


def _check_s3(folder: Folder, state: State, _address: str) -> str:
    return "" if s3_server(folder, state).is_ready() else "takes no object"


def _check_scheduler(folder: Folder, _state: State, address: str) -> str:
    _count_workers(folder, address)
    return ""


def _check_pages(folder: Folder, _state: State, address: str) -> str:
    trust = ssl.create_default_context(cafile=folder.certificates.ca)
    with urllib.request.urlopen(address, timeout=_ASK_SECONDS, context=trust):
        return ""


def _check_workers(folder: Folder, state: State, _address: str) -> str:
    scheduler = state.find("scheduler")
    if scheduler is None or scheduler.process() is None:
        return "their scheduler has ended"
    found = _count_workers(folder, scheduler.address)
    return "" if found == state.workers else f"{found} of {state.workers} are registered"


def _check_notebook(folder: Folder, _state: State, address: str) -> str:
    ready = notebook.is_ready(address, folder.certificates, folder.token.read_text())
    return "" if ready else "does not answer, or not to its token"


def _count_workers(folder: Folder, scheduler: str) -> int:
    with connect(scheduler, folder.certificates.security, _ASK_SECONDS) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


_CHECKS: Mapping[str, Callable[[Folder, State, str], str]] = {
    "s3": _check_s3,
    "scheduler": _check_scheduler,
    "pages": _check_pages,
    "workers": _check_workers,
    "notebook": _check_notebook,
}
