"""Locks on files: the system's (`filelock`), which end with the process that holds them.

A process that is forked meanwhile, as those that load images, holds none: `filelock` closes in it
what it inherited. So what outlives a killed process keeps nobody out.
"""

import errno
import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

from affinitynet.errors import UserError

# How file systems say that they lock no files: NFS without its lock service, FUSE, some clusters'.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# How they say that the folder of the lock went away after it was made, as whoever finishes a stage
# deletes it; the last one is NFS's word. It is made again, a few times: other causes stay.
_GONE = {errno.ENOENT, errno.EEXIST, errno.ESTALE}
_ATTEMPTS, _PAUSE = 10, 0.02  # to take a lock, seconds between


def take(file: Path, patience: float = 0.0) -> FileLock | None:
    """Take the lock of a file; None if another process holds it for longer than `patience` seconds.

    Raises:
        UserError: the file is a symbolic link (in a folder from elsewhere it may point anywhere),
            it can't be written, or its file system locks no files.
    """
    if file.is_symlink():
        raise UserError(f"{file}: is a symbolic link; delete it")
    left = _ATTEMPTS
    while True:
        try:
            return _take(file, patience)
        except (OSError, NotImplementedError) as error:
            left -= 1
            if not left or getattr(error, "errno", None) not in _GONE:
                raise _refused(file, error) from error
        time.sleep(_PAUSE)


def _take(file: Path, patience: float) -> FileLock | None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not its other kind of lock, a file that is there: a killed process would leave it behind.
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience, poll_interval=0.05)
    except Timeout:
        return None
    return lock


def _refused(file: Path, error: OSError | NotImplementedError) -> UserError:
    code = getattr(error, "errno", None)
    if code in _NO_LOCKS or isinstance(error, NotImplementedError):
        reason = os.strerror(code) if code else error
        return UserError(
            f"{file.parent}: files can't be locked there ({reason}), so nothing would keep two "
            "runs apart; put the run folder (--out) on another disk, or mount this one with locks "
            "(NFS 4, Lustre with -o flock)"
        )
    return UserError(
        f"{file}: can't be written ({getattr(error, 'strerror', None) or error}); give a run "
        "folder (--out) that can"
    )
