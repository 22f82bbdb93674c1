"""Which of several processes leads a run: the one that holds the run folder's lock.

It does what is done once: recipe and manifest, trainings, the record of a finished stage. When it
ends too early, another that waits takes its part. Linked processes have rank 0 lead.
"""

from pathlib import Path

from affinitynet.engine.place import here
from affinitynet.engine.shards import Helped
from affinitynet.engine.stopping import Wait
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import BusyError, locked

PATIENCE = 60.0  # seconds for a rank 0 that is gone, or has not come yet


class LostError(UserError):
    """Linked processes have lost one of them; its own message says why."""


def is_led(root: Path) -> bool:
    """Tell whether a process holds the run folder's lock now."""
    try:
        with locked(root, patience=0):
            return False
    except BusyError:
        return True


class Watch:
    """Waits for the process that leads, as long as there is one."""

    def __init__(self, root: Path, text: str) -> None:
        """Begin to wait; `text` is what is said meanwhile."""
        self._root, self._wait, self._seen = root, Wait(text), 0.0

    def step(self) -> bool:
        """Wait a moment; tell whether a process leads.

        Raises:
            LostError: rank 0 has been gone for a minute.
            Stopped: SIGTERM came.
        """
        self._wait.step()
        if is_led(self._root):
            self._seen = self._wait.seconds
            return True
        if not here().linked:
            return False
        if self._wait.seconds - self._seen > PATIENCE:
            raise LostError(
                f"{self._root}: the process of rank 0, which leads this run, has ended; its own "
                "message says why"
            )
        return True


def wait_for(root: Path, file: Path) -> None:
    """Wait until the leading process has made a file or folder.

    Raises:
        Helped: it has ended before.
    """
    watch = Watch(root, f"waits for {file}, which the leading process makes")
    while not file.exists():
        if not watch.step():
            raise Helped
