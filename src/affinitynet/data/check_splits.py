"""What `check` says of splits: images in two of them, and images in none that is used."""

from affinitynet.data.copies import identical
from affinitynet.data.manifest import Manifest
from affinitynet.data.splits import DEFAULT_SPLIT, is_usual

_NAMED = 10  # splits in a sentence


def unused_splits(manifest: Manifest) -> list[str]:
    """Images that no recipe uses unless it names their split: often a slip in its column."""
    # Without the split to train on it is a problem already.
    if DEFAULT_SPLIT not in manifest.splits:
        return []
    used = {s.id for name, split in manifest.splits.items() if is_usual(name) for s in split}
    others = {
        name: {sample.id for sample in split} - used
        for name, split in manifest.splits.items()
        if not is_usual(name)
    }
    named = [f"{name} ({len(ids)})" for name, ids in others.items() if ids]
    if not named:
        return []
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return [
        f"{len(set().union(*others.values()))} images are in no split that is used, but in "
        f"{', '.join(named[:_NAMED])}{more}: correct the split's name, or name it by "
        "dataset.train, dataset.val or dataset.figures"
    ]


def shared_images(manifest: Manifest) -> list[str]:
    """Images that train and that evaluate: a figure on them says nothing of new images.

    By content, as a copy under another name is the same image.
    """
    # VOC's trainval is train and val by definition, so its overlap is no news.
    splits = manifest.splits
    training = [name for name in splits if name.startswith("train") and name != "trainval"]
    held_out = [name for name in splits if name.startswith(("val", "test"))]
    if not training or not held_out:
        return []
    files = {sample.image for sample in manifest.samples if sample.image.is_file()}
    first_of = {copy: group[0] for group in identical(sorted(files)) for copy in group}
    images = {
        name: {first_of.get(s.image, s.image): s.id for s in split}
        for name, split in splits.items()
    }
    sentences = []
    for first in training:
        for second in held_out:
            shared = sorted(images[first].keys() & images[second].keys())
            if shared:
                one, other = images[first][shared[0]], images[second][shared[0]]
                named = one if one == other else f"{one}, as {other},"
                sentences.append(
                    f"{len(shared)} images are in both {first} and {second} ({named} first): "
                    f"figures on {second} are too good"
                )
    return sentences
