"""Changes files at random, as damage and other programs do: bytes, numbers, values of JSON, parts.

Half of the changes are made inside of a format (a chunk of a PNG, an array of an archive) and its
checksums set right again, so that they reach what reads the content.
"""

import copy
import hashlib
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

_TEXTS = (
    "null true -1 0 1e999 NaN -Infinity 0x10 99999999999999999999 1.5 [] {} [[ ]] : ; | , ' \" \\ "
    "../../x /etc/passwd C:\\x 2001-99-99 !!python/object:os &a *a <<: <!DOCTYPE &amp; <a> </a> "
    "encoding='hex' encoding='klingon' \\ud800 \\u0000 train Train background __ignore__ % { } - "
    "\u2028 \x85 \ufeff \u200b \u00e9 e\u0301 \x0b \x1b \x7f"
)
TOKENS = (
    *(text.encode() for text in _TEXTS.split(" ")),
    *(b"", b"\0", b"\0\0\0\0", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\t", b"\xff\xfe", b"\xff"),
    *(b"\xed\xa0\x80", b"\xe9", b"9" * 400, b"[" * 2000, b"a" * 5000, b"\xff\xff\xff\xff"),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(10**30), 10**400, 0.5, 1e308, -0.0),
    *("", " ", "x", "0", "1", "../x", "/x", "a\nb", "\0", "\ud800", "e\u0301", "x" * 3000),
    *([], {}, [[]], [None], [0], {"": 0}, [[1, 2], [3]], {"x": []}, [1e308, 1e308], [1, "x"]),
    float("nan"),
    float("inf"),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with one to four changes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_CHANGES)(content, rng)
    return content


def mutate_in(kind: str, content: bytes, rng: random.Random) -> bytes:
    """Change `content`, a sound file of a kind, as bytes or inside of its format."""
    inside = _INSIDE.get(kind)
    return mutate(content, rng) if inside is None or rng.random() < 0.5 else inside(content, rng)


def _slice(content: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.randint(0, most))


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\0"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _set(content: bytes, rng: random.Random) -> bytes:
    start, end = _slice(content, rng, 4)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _delete(content: bytes, rng: random.Random) -> bytes:
    start, end = _slice(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = _slice(content, rng)
    return content[:end] + content[start:]


def _move(content: bytes, rng: random.Random) -> bytes:
    (start, end), place = _slice(content, rng), rng.randint(0, len(content))
    return content[:place] + content[start:end] + content[place:]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _token(content: bytes, rng: random.Random) -> bytes:
    start, end = _slice(content, rng, 12)
    return content[:start] + rng.choice(TOKENS) + content[end if rng.random() < 0.5 else start :]


def _number(content: bytes, rng: random.Random) -> bytes:
    places = list(_NUMBER.finditer(content))
    if not places:
        return _token(content, rng)
    found = rng.choice(places)
    return content[: found.start()] + rng.choice(TOKENS) + content[found.end() :]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _set, _delete, _repeat, _move, _cut, _token, _token, _number, _number),
)


def _json(content: bytes, rng: random.Random) -> bytes:
    """Replace, drop or copy values of a JSON file, or of one of its lines."""
    lines = content.decode().split("\n") if content.count(b"\n{") else [content.decode()]
    place = rng.choice([number for number, line in enumerate(lines) if line.strip()])
    value = json.loads(lines[place])
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng)
    lines[place] = json.dumps(value)
    return "\n".join(lines).encode(errors="surrogatepass")


def _changed(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    how = rng.random()
    if how < 0.1:
        del value[key]
    elif how < 0.15 and isinstance(value, dict):
        value[rng.choice(("", "x", "id", key + " "))] = value.pop(key)
    elif how < 0.2 and isinstance(value, list):
        value.append(copy.deepcopy(value[key]))
    else:
        value[key] = _changed(value[key], rng)
    return value


def _png(content: bytes, rng: random.Random) -> bytes:
    """Change a chunk or the pixels of a PNG, and set the checksums right."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    which = rng.randrange(len(chunks))
    kind, data = chunks[which]
    if kind == b"IDAT" and rng.random() < 0.7:
        chunks[which] = kind, zlib.compress(mutate(zlib.decompress(data), rng))
    elif rng.random() < 0.2:
        new = rng.choice((b"iCCP", b"eXIf", b"tRNS", b"zTXt", b"iTXt", b"PLTE", b"gAMA", b"acTL"))
        chunks.insert(which, (new, mutate(data, rng)))
    else:
        chunks[which] = kind, mutate(data, rng)
    packed = (
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )
    return content[:8] + b"".join(packed)


def _zip(content: bytes, rng: random.Random) -> bytes:
    """Change a file inside of an archive, or its name; what is no archive as bytes."""
    if content[:2] != b"PK":
        return mutate(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    which = rng.randrange(len(members))
    name, data = members[which]
    if rng.random() < 0.1:
        members[which] = mutate(name.encode(), rng).decode(errors="replace") or "x", data
    else:
        # The head of a file says what follows: half of the changes go there.
        cut = len(data) if rng.random() < 0.5 else min(len(data), 128)
        members[which] = name, mutate(data[:cut], rng) + data[cut:]
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as new:
        for name, data in dict(members).items():
            with warnings.catch_warnings():  # two members of one name are a change as others
                warnings.simplefilter("ignore", UserWarning)
                new.writestr(zipfile.ZipInfo(name.replace("\0", "0")), data)
    return packed.getvalue()


def _checkpoint(content: bytes, rng: random.Random) -> bytes:
    """Change the archive before a checkpoint's checksum, and set the checksum right."""
    end = len(b"affinitynet sha256 ") + 32
    body = _zip(content[:-end], rng) if rng.random() < 0.7 else mutate(content[:-end], rng)
    return body + content[-end:-32] + hashlib.sha256(body).digest()


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change the head of a file of weights, and set its length right."""
    length = struct.unpack("<Q", content[:8])[0]
    head = (_json if rng.random() < 0.7 else mutate)(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


_INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json,
    "jsonl": _json,
    "png": _png,
    "npz": _zip,
    "zip": _zip,
    "checkpoint": _checkpoint,
    "safetensors": _safetensors,
}
