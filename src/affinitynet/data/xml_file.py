"""XML that others wrote, parsed without what can do harm."""

from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from affinitynet.errors import UserError


def parse_xml(
    path: Path, entities: str, invalid: str, decode: Callable[[bytes], bytes | str] = bytes
) -> Element:
    """Parse a file, after `decode`; no entities, as nested ones blow a small file up to gigabytes.

    `entities` says after "declares XML entities, " why it needs none and what to do, `invalid` what
    to do about a file that is not valid XML.

    Raises:
        UserError: it can't be read, is not XML, or declares entities.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    try:
        root: Element = fromstring(decode(content), forbid_dtd=True)
    except DefusedXmlException as error:
        raise UserError(f"{path}: declares XML entities, {entities}") from error
    # An encoding that isn't known is a ValueError or a LookupError.
    except (ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: is not valid XML ({error}); {invalid}") from error
    return root
