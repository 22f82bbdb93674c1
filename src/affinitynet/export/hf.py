"""Hugging Face's image folder: images, masks, and ``metadata.jsonl`` for each split."""

import json
import re
from pathlib import Path

import yaml

from affinitynet.export.dataset import Export
from affinitynet.export.pictures import copy_picture
from affinitynet.export.png import write_mask

_MASKS = "masks"  # the column is named `mask`, by `mask_file_name`


def write(export: Export, out: Path) -> None:
    """Write a folder a part, and ``README.md``, which names the labels and the parts' files.

    ``load_dataset(FOLDER)`` then gives the columns `image`, `mask` and `tags` (names of classes).
    """
    files = []
    for part, samples in export.parts.items():
        split = re.sub(r"\W", "_", part)
        files.append({"split": split, "path": f"{part}/**"})
        lines = []
        for sample in samples:
            folder = out / part
            picture = copy_picture(sample, folder / "images")
            entry = {
                "file_name": f"images/{picture}",
                "mask_file_name": f"{_MASKS}/{write_mask(export, sample, folder / _MASKS)}",
                "tags": [export.classes[tag] for tag in sample.tags],
            }
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        text = "".join(lines)
        (out / part / "metadata.jsonl").write_text(text, "utf-8", newline="\n")
    card = {
        "task_categories": ["image-segmentation"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    head = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    names = enumerate(("background", *export.classes))
    table = "".join(f"| {value} | {name.replace('|', '/')} |\n" for value, name in names)
    void = f"| {export.void} | void: not to be learned from |\n" if export.keep_void else ""
    text = (
        f"---\n{head}---\n\n# Masks made with AffinityNet\n\n"
        f"| value in `mask` | label |\n| --- | --- |\n{table}{void}"
    )
    (out / "README.md").write_text(text, "utf-8", newline="\n")
