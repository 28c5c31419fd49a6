"""Images of Pillow, and the JPEG of every library that draws PNG only."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.figures.page import picture_page
from pamola_dwriter.figures.renderer import Renderer, unsupported

if TYPE_CHECKING:
    from PIL import Image

# Pillow's default of 75 blurs the lines and letters of a chart.
_QUALITY = 95
_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}
_OTHER_ALPHA_MODES = {"La", "RGBa", "PA"}
_OPAQUE_MODES = {"L", "RGB", "CMYK"}


def encode(image: Image.Image, format_name: str) -> bytes:
    """Return an image as png, or laid on white as jpg or pdf.

    Of an animation it is the present frame. A pdf holds it as JPEG.
    """
    buffer = io.BytesIO()
    if format_name == "png":
        _for_png(image).save(buffer, "PNG")
    elif format_name == "jpg":
        _on_white(image, format_name).save(buffer, "JPEG", quality=_QUALITY)
    else:
        # Without a date the same image gives the same bytes.
        undated = {"creationDate": None, "modDate": None}
        _on_white(image, format_name).save(buffer, "PDF", quality=_QUALITY, **undated)
    return buffer.getvalue()


def png_to_jpg(data: bytes) -> bytes:
    """Return a PNG as JPEG, on white."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return encode(image, "jpg")


def _draw(figure: Any, format_name: str) -> bytes:
    from PIL import Image

    if not isinstance(figure, Image.Image):
        raise unsupported(figure)
    if format_name == "html":
        return picture_page("Image", "image/png", encode(figure, "png"))
    return encode(figure, format_name)


def _for_png(image: Image.Image) -> Image.Image:
    # Saving notes its options on the image, so it gets one of ours.
    if image.mode in _PNG_MODES:
        return image.copy()
    _refuse_numbers(image, "png")
    return _rgba(image) if image.mode in _OTHER_ALPHA_MODES else image.convert("RGB")


def _on_white(image: Image.Image, format_name: str) -> Image.Image:
    from PIL import Image

    if image.mode == "1":  # of which a pdf takes no quality
        return image.convert("L")
    if image.mode in _OPAQUE_MODES and "transparency" not in image.info:
        return image.copy()
    _refuse_numbers(image, format_name)
    layer = _rgba(image)
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _rgba(image: Image.Image) -> Image.Image:
    # From La there is no other way.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _refuse_numbers(image: Image.Image, format_name: str) -> None:
    if image.mode.startswith(("I", "F")):
        raise UnsupportedDataError(
            f"a Pillow image of mode {image.mode} cannot be written as {format_name}, since the "
            "range of its numbers is not known; scale it to 0..255 and convert it to mode L"
        )


PILLOW = Renderer(formats=("png", "pdf", "html", "jpg"), draw=_draw)
