"""Where a stack keeps what it needs: the names of its files, its secrets, and who may read them.

Everything is for its owner alone. What the user would miss (objects, and the keys that open them)
is kept apart from what is of no use when the stack is down.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex
from shlex import quote

from deploy.local.certificates import Certificates
from pamola_dwriter.storage import locks


class StackError(RuntimeError):
    """A stack cannot be brought up or down as asked; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What a stack's servers share with its clients, drawn when its folder is made."""

    access_key: str = field(default_factory=lambda: token_hex(10), repr=False)
    secret_key: str = field(default_factory=lambda: token_hex(20), repr=False)
    filer_key: str = field(default_factory=lambda: token_hex(32), repr=False)
    filer_read_key: str = field(default_factory=lambda: token_hex(32), repr=False)
    pii_key: str = field(default_factory=lambda: token_hex(32), repr=False)


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one stack, absolute."""

    path: Path

    @property
    def state(self) -> Path:
        """Which processes run, without a secret."""
        return self.path / "state.json"

    @property
    def environment(self) -> Path:
        """What a shell sources to use the stack."""
        return self.path / "environment"

    @property
    def token(self) -> Path:
        """What the notebook server asks for, another one each time."""
        return self.path / "token"

    @property
    def keys(self) -> Path:
        """The secrets: with the objects they outlive the stack, for they open them."""
        return self.path / "keys.json"

    @property
    def objects(self) -> Path:
        """What the S3 server keeps."""
        return self.path / "s3"

    @property
    def logs(self) -> Path:
        """A file for each server."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Sockets, and what workers spill."""
        return self.path / "run"

    @property
    def certificates(self) -> Certificates:
        """The throw-away authority and the one certificate it signed."""
        return Certificates(self.path / "tls")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and hold it while a stack is brought up or down.

        Raises
        ------
        StackError
            It holds what no stack has put there, somebody else is at work in it, or nothing can be
            written there.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._lock.exists() and any(self.path.iterdir()):
                message = f"{self.path} is not empty and not a stack's; name another --folder"
                raise StackError(message)
            held = locks.acquire(str(self._lock), patience=0)
        except locks.LockHeldError:
            message = f"another `up` or `down` is at work in {self.path}; wait for it to end"
            raise StackError(message) from None
        except OSError as error:
            message = f"{self.path} is no place for a stack ({error}); name another --folder"
            raise StackError(message) from error
        try:
            yield
        finally:
            locks.release(held)

    def prepare(self) -> None:
        """Make the folders, and secrets unless there are those that objects were kept by.

        Logs of an earlier stack are removed.
        """
        self.clear()
        shutil.rmtree(self.logs, ignore_errors=True)
        for each in (self.objects, self.logs, self.run):
            each.mkdir(mode=0o700, exist_ok=True)
        if not self.keys.exists():
            write_private(self.keys, json.dumps(asdict(Secrets()), indent=2))

    def secrets(self) -> Secrets:
        """Return the secrets of a stack that was prepared."""
        return Secrets(**json.loads(self.keys.read_text()))

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Write what ``. FILE`` sets in a shell, in the place of what it knew of other stores."""
        lines = [
            "# Source this to use the stack. It holds secrets: whoever reads it is let in.",
            "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_REGION",
            *(f"export {name}={quote(value)}" for name, value in variables.items()),
        ]
        write_private(self.environment, "\n".join(lines) + "\n")

    def clear(self, *, data: bool = False) -> None:
        """Remove what is of no use when the stack is down; with `data`, all that it has made."""
        for file in (self.state, self.environment, self.token):
            file.unlink(missing_ok=True)
        for folder in (self.certificates.folder, self.run):
            shutil.rmtree(folder, ignore_errors=True)
        if data:
            self.keys.unlink(missing_ok=True)
            for folder in (self.objects, self.logs):
                shutil.rmtree(folder)
            self._lock.unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()

    @property
    def _lock(self) -> Path:
        return self.path / ".pamola-stack.lock"


def default_folder() -> Path:
    """Where a stack is if nobody names another place: its objects go when it is taken down."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "pamola-dwriter", "local")


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)
