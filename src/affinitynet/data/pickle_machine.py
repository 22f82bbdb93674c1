"""Pickles read without Python's unpickler: what a pickle names is never looked up, so never runs.

A pickle is a program for a small stack machine. Python's own `pickle.load` lets it import and call
anything. This machine knows the instructions that arrays, numbers, strings, lists, tuples and
dictionaries need. A global stays the pair of its names, and a call of it goes to a function of
ours or is refused.

Source of the instructions' meaning: the standard library's documentation in `pickletools`.
"""

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class RefusedError(Exception):
    """The pickle asks for what no file of arrays needs."""


class Global(NamedTuple):
    """A class or function that the pickle names: its names, and nothing more."""

    module: str
    name: str


Builder = Callable[..., Any]
"""Called with the pickle's arguments in place of a global."""


class Buildable:
    """What a builder returns where a later instruction (BUILD) brings the content."""

    def build(self, state: Any, outermost: bool) -> Any:
        """Return the finished value; outermost: it is in no container."""
        raise NotImplementedError


class _End(Exception):  # noqa: N818  (an instruction, not an error)
    """The pickle's last instruction."""


def read_pickle(
    stream: io.BytesIO,
    globals_: Mapping[Global, Builder],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Build the value of one pickle and leave the stream behind it.

    globals_: what the pickle may name, each with the function that is called in its place.
    persistent: resolves the pickle's references to things beside it; without it they are refused.

    Raises:
        RefusedError: the pickle asks for anything else.
        ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error: it is damaged.
    """
    machine = _Machine(globals_, persistent)
    while True:
        code = _exactly(stream, 1)
        if code not in _INSTRUCTIONS:
            raise RefusedError(f"the instruction {code!r}")
        read, act = _INSTRUCTIONS[code]
        try:
            act(machine, read(stream))
        except _End:
            (value,) = machine.stack
            return value


_KEYS = (str, int, float, np.number)


class _Machine:
    """The stack, the memory, and one method for each kind of instruction."""

    def __init__(
        self, globals_: Mapping[Global, Builder], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.stack: list[Any] = []
        self._globals = globals_
        self._persistent = persistent
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}
        self._places: dict[int, list[int]] = {}  # id of a Buildable -> where the memory holds it

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        # Never below the last mark: what lies there belongs to a container that is not finished.
        if len(self.stack) - count < (self._marks[-1] if self._marks else 0):
            raise IndexError("an instruction finds too little on the stack")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def mark(self, _: Any) -> None:
        self._marks.append(len(self.stack))

    def pop_marked(self) -> list[Any]:
        place = self._marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def remember(self, place: int | None) -> None:
        place = len(self._memory) if place is None else place
        self._memory[place] = value = self.stack[-1]
        # Unfinished yet: `build` puts the finished value in its place here too.
        if isinstance(value, Buildable):
            self._places.setdefault(id(value), []).append(place)

    def recall(self, place: int) -> None:
        self.push(self._memory[place])

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise RefusedError("an append to what is no list")
        target.extend(values)

    def update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        # Numbers and strings only: the hash of a tuple of tuples of tuples may never come back.
        if type(target) is not dict or not all(isinstance(key, _KEYS) for key in values[::2]):
            raise RefusedError("a dictionary whose keys are no numbers or strings")
        target.update(zip(values[::2], values[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise RefusedError("something without a name")
        if Global(module, name) not in self._globals:
            raise RefusedError(f"{module}.{name}")
        self.push(Global(module, name))

    def call(self, _: Any) -> None:
        function, arguments = self.pop(2)
        if type(function) is not Global or type(arguments) is not tuple:
            raise RefusedError("a call of what is no function")
        self.push(self._globals[function](*arguments))

    def build(self, _: Any) -> None:
        target, state = self.pop(2)
        if not isinstance(target, Buildable):
            raise RefusedError("content for what has none")
        value = target.build(state, outermost=not self.stack)
        for place in self._places.pop(id(target), ()):
            if self._memory[place] is target:
                self._memory[place] = value
        self.push(value)

    def refer(self, _: Any) -> None:
        (reference,) = self.pop(1)
        if self._persistent is None:
            raise RefusedError("something outside the file")
        self.push(self._persistent(reference))

    def end(self, _: Any) -> None:
        raise _End


def _exactly(stream: io.BytesIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise ValueError("it is cut short")
    return data


def _nothing(_: io.BytesIO) -> None:
    return None


def _unsigned(width: int) -> Callable[[io.BytesIO], int]:
    return lambda stream: int.from_bytes(_exactly(stream, width), "little")


def _signed(stream: io.BytesIO) -> int:
    return int.from_bytes(_exactly(stream, 4), "little", signed=True)


def _float(stream: io.BytesIO) -> float:
    value: float = struct.unpack(">d", _exactly(stream, 8))[0]
    return value


def _counted(width: int) -> Callable[[io.BytesIO], bytes]:
    count = _unsigned(width)
    return lambda stream: _exactly(stream, count(stream))


def _text(width: int, encoding: str = "utf-8") -> Callable[[io.BytesIO], str]:
    counted = _counted(width)
    return lambda stream: counted(stream).decode(encoding)


def _long(width: int) -> Callable[[io.BytesIO], int]:
    counted = _counted(width)
    return lambda stream: int.from_bytes(counted(stream), "little", signed=True)


def _two_lines(stream: io.BytesIO) -> tuple[str, str]:
    first, second = (stream.readline().removesuffix(b"\n").decode("ascii") for _ in range(2))
    return first, second


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(tuple(machine.pop(count)))


def _ignore(machine: _Machine, argument: Any) -> None:
    """Pass over what only announces: the protocol, and how long a frame is."""


_Instruction = tuple[Callable[[io.BytesIO], Any], Callable[[_Machine, Any], None]]
# code: (how its argument is read, what it does)
_INSTRUCTIONS: dict[bytes, _Instruction] = {
    b"\x80": (_unsigned(1), _ignore),  # PROTO
    b"\x95": (_unsigned(8), _ignore),  # FRAME
    b".": (_nothing, _Machine.end),
    # constants
    b"N": (_nothing, _constant(None)),
    b"\x88": (_nothing, _constant(True)),
    b"\x89": (_nothing, _constant(False)),
    b")": (_nothing, _constant(())),
    b"K": (_unsigned(1), _Machine.push),  # BININT1
    b"M": (_unsigned(2), _Machine.push),  # BININT2
    b"J": (_signed, _Machine.push),  # BININT
    b"\x8a": (_long(1), _Machine.push),
    b"\x8b": (_long(4), _Machine.push),
    b"G": (_float, _Machine.push),
    b"\x8c": (_text(1), _Machine.push),  # SHORT_BINUNICODE
    b"X": (_text(4), _Machine.push),
    b"\x8d": (_text(8), _Machine.push),
    b"U": (_text(1, "latin-1"), _Machine.push),  # SHORT_BINSTRING: Python 2's str
    b"T": (_text(4, "latin-1"), _Machine.push),
    b"C": (_counted(1), _Machine.push),  # SHORT_BINBYTES
    b"B": (_counted(4), _Machine.push),
    b"\x8e": (_counted(8), _Machine.push),
    b"\x96": (_counted(8), _Machine.push),  # BYTEARRAY8
    # containers
    b"(": (_nothing, _Machine.mark),
    b"]": (_nothing, lambda machine, _: machine.push([])),
    b"}": (_nothing, lambda machine, _: machine.push({})),
    b"a": (_nothing, lambda machine, _: machine.extend(machine.pop(1))),
    b"e": (_nothing, lambda machine, _: machine.extend(machine.pop_marked())),
    b"s": (_nothing, lambda machine, _: machine.update(machine.pop(2))),
    b"u": (_nothing, lambda machine, _: machine.update(machine.pop_marked())),
    b"t": (_nothing, lambda machine, _: machine.push(tuple(machine.pop_marked()))),
    b"\x85": (_nothing, _tuple(1)),
    b"\x86": (_nothing, _tuple(2)),
    b"\x87": (_nothing, _tuple(3)),
    # memory
    b"q": (_unsigned(1), _Machine.remember),
    b"r": (_unsigned(4), _Machine.remember),
    b"\x94": (_nothing, _Machine.remember),
    b"h": (_unsigned(1), _Machine.recall),
    b"j": (_unsigned(4), _Machine.recall),
    # names and calls
    b"c": (_two_lines, lambda machine, names: machine.name(*names)),
    b"\x93": (_nothing, lambda machine, _: machine.name(*machine.pop(2))),
    b"R": (_nothing, _Machine.call),
    b"b": (_nothing, _Machine.build),
    b"Q": (_nothing, _Machine.refer),
}
