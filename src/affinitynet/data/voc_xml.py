"""Annotations of VOC: the names of the objects in an XML file."""

import re
from pathlib import Path

from affinitynet.data.xml_file import parse_xml

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._\-]+)["'][^>]*\?>""")
_PARSED = ("utf-8", "utf8", "utf-16", "utf16", "us-ascii", "ascii", "iso-8859-1")  # by expat itself


def read_objects(path: Path) -> tuple[str, ...]:
    """Return the names of an annotation's objects, each once, in any encoding that it declares.

    Raises:
        UserError: it can't be read, is not XML, or declares entities.
    """
    root = parse_xml(
        path, "which no VOC annotation needs; remove them", "save it as UTF-8", _decoded
    )
    objects = root.findall("object")
    return tuple(dict.fromkeys((item.findtext("name") or "").strip() for item in objects))


def _decoded(content: bytes) -> bytes | str:
    """Decode what the parser can't: encodings of several bytes a character, as GB2312."""
    declared = _DECLARED.match(content)
    if declared is None or declared[1].decode().lower() in _PARSED:
        return content
    return content[declared.end() :].decode(declared[1].decode())
