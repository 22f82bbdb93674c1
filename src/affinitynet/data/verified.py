"""A stage's state after a look at its files, not only at its records: `status --verify`."""

from affinitynet.data import contents
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import count_files
from affinitynet.run_folder.freshness import Freshness, StageStatus
from affinitynet.run_folder.stages import Stage


def verified(freshness: Freshness, manifest: Manifest, stage: Stage) -> StageStatus:
    """Return a stage's state; one that is finished is stale if a file of it is gone or changed.

    Raises:
        UserError: the stage's record is damaged.
    """
    recipe = freshness.recipe
    state = freshness.status(stage, lambda stage: count_files(recipe, manifest, stage))
    if state.state != "to do" and (
        images := contents.changed_images(recipe, manifest, stage, finished=state.finished)
    ):
        said = f"(these images were replaced: {contents.say_some(images)})"
        return StageStatus(stage.name, "stale", said)
    if not state.finished:
        return state
    # Images of val may lack what comes from files.
    counted = stage.suffix and not stage.source
    done, total = count_files(recipe, manifest, stage) if counted else (0, 0)
    if done < total:
        said = f"({total - done} of {total} files of {stage.folder} are gone)"
        return StageStatus(stage.name, "stale", said)
    if files := contents.changed_files(recipe, manifest, stage):
        said = f"(changed since they were made: {contents.say_some(files)})"
        return StageStatus(stage.name, "stale", said)
    return state
