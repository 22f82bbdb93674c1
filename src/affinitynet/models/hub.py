"""The segmenter in segmentation-models' folder layout, with a model card, as hubs take it."""

import json
from pathlib import Path
from typing import Any, cast

from affinitynet.errors import UserError
from affinitynet.models.dense_heads import Dpt
from affinitynet.models.segmenter import LargeFov, Segmenter
from affinitynet.run_folder.folder import atomic_write


def write_hub_folder(segmenter: Segmenter, out: Path) -> None:
    """Write ``config.json``, ``model.safetensors``, ``preprocessing.json`` and ``README.md``.

    `segmentation_models_pytorch.from_pretrained(out)` gives the network, without normalization,
    padding, scales and CRF, which the card describes.

    Raises:
        UserError: LargeFOV, or DPT as it is built here, which are none of that library's.
    """
    network = cast(Any, segmenter.net.network)
    if isinstance(network, LargeFov | Dpt):
        name = "largefov" if isinstance(network, LargeFov) else "dpt for patches of any size"
        raise UserError(
            f"--format segmenter: {name} is no network of segmentation-models; use onnx or pt2"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        network.save_pretrained(str(out))
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror or error})") from error
    normalization = segmenter.net.normalization
    names = ["background", *segmenter.classes]
    preprocessing = {
        "scale": normalization.scale,
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "multiple": segmenter.net.multiple,
        "labels": names,
    }
    with atomic_write(out / "preprocessing.json") as temporary:
        text = json.dumps(preprocessing, ensure_ascii=False, indent=2)
        temporary.write_text(text + "\n", "utf-8")
    with atomic_write(out / "README.md") as temporary:
        temporary.write_text(_card(segmenter, names), "utf-8", newline="\n")


def _card(segmenter: Segmenter, names: list[str]) -> str:
    settings, net = segmenter.settings, segmenter.net
    scales = ", ".join(f"{scale:g}" for scale in settings.scales)
    averaged = f"scales {scales}{' and mirrored images' if settings.flip else ''}"
    table = "".join(f"| {label} | {name.replace('|', '/')} |\n" for label, name in enumerate(names))
    crf = "The dense CRF refines the average." if settings.refine else "No CRF follows."
    return f"""---
library_name: segmentation-models-pytorch
pipeline_tag: image-segmentation
tags:
- segmentation-models-pytorch
- weakly-supervised
---

# {settings.architecture} for {len(names) - 1} classes

A semantic segmentation network, trained by AffinityNet on masks that were made from image tags
alone; nobody drew its training masks. Look at its masks of your images before you rely on them.

```python
import json
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image

model = smp.from_pretrained("FOLDER").eval()
how = json.load(open("FOLDER/preprocessing.json"))
image = torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB"))).permute(2, 0, 1)[None]
image = (image / how["scale"] - torch.tensor(how["mean"]).view(3, 1, 1)) / torch.tensor(
    how["std"]
).view(3, 1, 1)
height, width = image.shape[-2:]
padding = (0, -width % how["multiple"], 0, -height % how["multiple"])
with torch.inference_mode():
    logits = model(torch.nn.functional.pad(image, padding))[..., :height, :width]
labels = logits.argmax(1)[0]
```

AffinityNet itself averages the probabilities over {averaged}. {crf}
Images are RGB, divided by {net.normalization.scale:g}, then normalized by mean
{list(net.normalization.mean)} and standard deviation {list(net.normalization.std)}, and padded at
the bottom and right to multiples of {net.multiple}.

| label | class |
| --- | --- |
{table}"""
