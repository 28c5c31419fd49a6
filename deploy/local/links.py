"""How a client reaches the servers of a stack: addresses, credentials, and whom to trust."""

from __future__ import annotations

from urllib.parse import urlsplit

from deploy.local.folder import Folder
from deploy.local.s3 import REGION, S3Server
from deploy.local.state import MARK, State


def s3_server(folder: Folder, state: State) -> S3Server:
    """Return the S3 server of a stack; if it has not been started, as it is to be."""
    secrets, address = folder.secrets(), state.address("s3")
    return S3Server(
        bucket=state.bucket,
        data=folder.objects,
        run=folder.run,
        logs=folder.logs,
        tls=folder.certificates,
        access_key=secrets.access_key,
        secret_key=secrets.secret_key,
        signing_keys=(secrets.filer_key, secrets.filer_read_key),
        ports=(urlsplit(address).port or 0,) if address else (),
        extra_environment={MARK: state.name},
    )


def store_environment(folder: Folder, state: State) -> dict[str, str]:
    """Return what whoever reads and writes datasets needs; it holds secrets: do not print."""
    secrets = folder.secrets()
    return {
        "AWS_ENDPOINT_URL_S3": state.address("s3") or "",
        "AWS_CA_BUNDLE": str(folder.certificates.ca),
        "AWS_ACCESS_KEY_ID": secrets.access_key,
        "AWS_SECRET_ACCESS_KEY": secrets.secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PII_KEY": secrets.pii_key,
    }


def client_environment(folder: Folder, state: State) -> dict[str, str]:
    """Return what lets a client in everywhere; it holds secrets: do not print."""
    return {
        "DASK_SCHEDULER_ADDRESS": state.address("scheduler") or "",
        **folder.certificates.environment,
        **store_environment(folder, state),
    }
