"""What is made anew replaces the old when it is complete: until then the old waits beside it."""

from collections.abc import Sequence
from pathlib import Path

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import remove_tree
from affinitynet.run_folder.records import RECORD
from affinitynet.run_folder.stages import Stage, folders_of


def set_stages_aside(root: Path, redone: Sequence[Stage], stages: Sequence[Stage]) -> None:
    """Make room for what replaces the files of some of a run's stages.

    Raises:
        UserError: a folder can't be moved.
    """
    # The last first: whatever stops this, no stage is left without what it was made from.
    for stage in reversed(redone):
        whole = (root / stage.folder / RECORD).is_file()
        for folder in folders_of(stage, stages):
            set_aside(root / folder, whole=whole)


def forget_stage(root: Path, stage: Stage, stages: Sequence[Stage]) -> None:
    """Delete what was set aside for a stage of a run, which is complete now.

    Raises:
        UserError: it can't be deleted.
    """
    for folder in folders_of(stage, stages):
        forget(root / folder)


def set_aside(path: Path, *, whole: bool = True) -> None:
    """Make room for a folder's replacement; the folder waits beside it, as `.NAME.discarded`.

    Where one waits there already, the `whole` one of the two stays: the last that was finished.

    Raises:
        UserError: it can't be renamed, or the other one not deleted.
    """
    # A broken link does not exist, but it takes up the name.
    if not (path.exists() or path.is_symlink()):
        return
    grave = _grave(path)
    if grave.exists() or grave.is_symlink():
        remove_tree(grave if whole else path)
        if not whole:
            return
    try:
        path.rename(grave)
    except OSError as error:
        raise UserError(f"{path}: can't be moved out of the way ({error.strerror})") from error


def forget(path: Path) -> None:
    """Delete what was set aside for a folder, which is complete now.

    Raises:
        UserError: it can't be deleted.
    """
    remove_tree(_grave(path))


def _grave(path: Path) -> Path:
    return path.with_name(f".{path.name}.discarded")
