"""Fields that the body and what is shown have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pamola_dwriter.errors import IntegrityError
from pamola_dwriter.manifest.nouns import Retired
from pamola_dwriter.spec import WriteId

DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of taking a document apart that is not one of ours."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a JSON object: names sorted, no blanks."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_write_id(text: str) -> WriteId:
    """Return the identity of a write; IntegrityError if it is none."""
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise IntegrityError("the manifest is damaged: a write id in it is not one")
    return WriteId(text)


def retired_to_json(retired: Retired) -> dict[str, str]:
    """Return a JSON object of replaced writes; parsed by :func:`parse_retired`."""
    return {write_id: since.isoformat() for write_id, since in retired.items()}


def parse_retired(times: Mapping[str, str]) -> Retired:
    """Parse what :func:`retired_to_json` made; IntegrityError or ValueError if it is not that."""
    retired = {parse_write_id(text): datetime.fromisoformat(t) for text, t in times.items()}
    if any(since.tzinfo is None for since in retired.values()):
        raise IntegrityError("the manifest is damaged: a time in it has no zone")
    return retired
