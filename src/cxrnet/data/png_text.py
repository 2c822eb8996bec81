"""PNG without its texts, which Pillow refuses to read where they are long, and the image with them."""

import struct

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # a colour profile is packed as a text is, and not used
_XMP = b"XML:com.adobe.xmp\0\0"  # not packed: may say how the image is turned


def without_texts(data: bytes) -> bytes | None:
    """Leave texts and the colour profile of a PNG out; ``None`` if there are none, or it isn't one.

    Pillow unpacks a text into a megabyte at most, all into 64, as a small file may unpack into gigabytes. What is not
    unpacked needs no such limit.
    """
    if not data.startswith(_SIGNATURE):
        return None
    kept, start, place = [], 0, len(_SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if name in _TEXTS and not data.startswith(_XMP, place + 8):
            kept.append(data[start:place])
            start = end
        place = end
    return b"".join([*kept, data[start:]]) if kept else None
