"""Make the secrets, certificates and folders that the compose file names, each run its own.

``python -m deploy.docker.prepare deploy/docker`` writes ``secrets/``, ``data/`` and ``.env`` there.
What is there already stays, but for the certificates, which are good for a week and made anew: run
it again, then ``docker compose up --detach --force-recreate``. Nothing secret is printed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from secrets import token_hex, token_urlsafe

from deploy.local.certificates import make_certificates

BUCKET = "lake"
SERVERS = ("dask-scheduler", "worker", "s3", "localhost")
SERVICES = ("grafana", "notebooks", "prometheus", "seaweedfs")
USER = 10001
"""Who runs the containers if root prepares them; else whoever prepares them does."""

_IDENTITIES = {
    "admin": ["Admin"],
    "writer": [f"{action}:{BUCKET}" for action in ("Read", "Write", "List", "Tagging")],
}


def prepare(folder: Path) -> None:
    """Make what is missing in `folder`, for its owner alone, and the certificates anew.

    A bind-mounted secret keeps its owner and mode, so the containers run as the user who owns
    the files: ``.env`` says which.
    """
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_certificates(secrets, SERVERS)
    _write_store_keys(secrets)
    for name in ("dataset-key", "grafana-password", "jupyter-token"):
        _write_new(secrets / name, token_hex(32) if name == "dataset-key" else token_urlsafe(24))
    for name in SERVICES:
        (folder / "data" / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = (os.getuid(), os.getgid()) if os.getuid() else (USER, USER)
    _write_new(folder / ".env", f"PAMOLA_UID={owner[0]}\nPAMOLA_GID={owner[1]}\n")
    if os.getuid() == 0:
        for path in (secrets, *secrets.iterdir(), folder / "data", *(folder / "data").iterdir()):
            os.chown(path, *owner)


def _write_store_keys(secrets: Path) -> None:
    """Give the store its identities, and their users the same keys; all of them or none."""
    identities = []
    for name, actions in _IDENTITIES.items():
        if (secrets / f"{name}-credentials").exists():
            return
        key = {"accessKey": token_hex(10), "secretKey": token_hex(20)}
        identities.append({"name": name, "credentials": [key], "actions": actions})
    _write_new(secrets / "s3-identities.json", json.dumps({"identities": identities}))
    for identity in identities:
        key = identity["credentials"][0]  # type: ignore[assignment]
        _write_new(
            secrets / f"{identity['name']}-credentials",
            f"[default]\naws_access_key_id = {key['accessKey']}\n"
            f"aws_secret_access_key = {key['secretKey']}\n",
        )


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        return
    path.touch(mode=0o600)
    path.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m deploy.docker.prepare FOLDER")
    prepare(Path(sys.argv[1]))
