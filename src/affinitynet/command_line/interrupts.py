"""Ctrl-C ends the command line within about a second, whatever the program is at.

Python raises `KeyboardInterrupt` in the main thread, between two of its own steps. Where that
thread waits in compiled code it comes late; where it falls into an import or a destructor it is
turned into another error, or lost. So a thread of its own hears the signal, gives the program a
second to end by itself, and then ends it: files are whole at any moment, as after `kill -9`.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from types import FrameType

GRACE = 1.0  # seconds
CODE = 130  # as a shell says that a command was interrupted
MESSAGE = "interrupted; give the same command again to continue"

_heard = threading.Event()
_told = threading.Event()


def watch_interrupts() -> None:
    """Watch for Ctrl-C until the process ends; where it is ignored (nohup), leave it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    hears, speaks = socket.socketpair()
    speaks.setblocking(False)
    # What the system itself writes on a signal, while Python can't do anything yet.
    signal.set_wakeup_fd(speaks.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_watch, args=(hears,), daemon=True).start()


def was_interrupted() -> bool:
    """Tell whether Ctrl-C was pressed: an error that follows is its doing."""
    return _heard.is_set()


def tell_once() -> bool:
    """Tell whether it is still to be said that the program was interrupted, and take it as said."""
    first = not _told.is_set()
    _told.set()
    return first or not was_interrupted()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _heard.is_set():  # the watch ends the process
        return
    _heard.set()
    # A destructor that is interrupted would print a traceback, and go on.
    sys.unraisablehook = lambda _: None
    raise KeyboardInterrupt


def _watch(hears: socket.socket) -> None:
    while signal.SIGINT not in hears.recv(64):  # other signals wake it too
        pass
    hears.settimeout(GRACE)
    with contextlib.suppress(TimeoutError):
        while signal.SIGINT not in hears.recv(64):  # a second Ctrl-C doesn't wait
            pass
    _heard.set()
    if tell_once():
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a bar hides it
        with contextlib.suppress(OSError):
            os.write(2, f"{show_cursor}affinitynet: {MESSAGE}\n".encode())
    os._exit(CODE)
