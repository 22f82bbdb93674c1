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
    if state.state != "to do" and (images := contents.changed_images(recipe, manifest, stage)):
        said = f"(these images were replaced: {contents.say_some(images)})"
        return StageStatus(stage.name, "stale", said)
    if not state.finished or not stage.suffix:
        return state
    done, total = count_files(recipe, manifest, stage)
    if done == total and (masks := contents.changed_masks(recipe, manifest, stage)):
        said = f"(changed since they were made: {contents.say_some(masks)})"
        return StageStatus(stage.name, "stale", said)
    if done == total:
        return state
    return StageStatus(
        stage.name, "stale", f"({total - done} of {total} files of {stage.folder} are gone)"
    )
