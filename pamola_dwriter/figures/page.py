"""A picture as an HTML page of its own."""

from __future__ import annotations

import base64
from html import escape

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
</head>
<body>
<img alt="{title}" src="data:{media_type};base64,{data}">
</body>
</html>
"""


def picture_page(title: str, media_type: str, data: bytes) -> bytes:
    """Return a page that holds the picture itself.

    It stands in an ``img``, where a browser runs no script and follows no link that an SVG may
    contain, and where its ids meet no others.
    """
    encoded = base64.b64encode(data).decode()
    return _PAGE.format(title=escape(title), media_type=media_type, data=encoded).encode()
