"""Embed the names of a data set's classes as text, for `cams.source: text`.

Maps by text compare an image with what its tags say, against words for the background (CLIP-ES,
CVPR 2023, arXiv 2212.09506: the prompt, the softmax). CLIP's text tower is needed once, here; a run
needs the file that this writes, and the image tower of the same weights from timm.

    pip install open_clip_torch
    python examples/text_embeddings.py photos texts.safetensors ViT-B-16-quickgelu openai
    affinitynet run own_images --data photos --out runs/text --cams.source text \
        --cams.text texts.safetensors --backbone.name vit_base_patch16_clip_quickgelu_224.openai \
        --affinity.output_stride null
"""

import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

import affinitynet as an

PROMPT = "a clean origami {}."
# In place of a class's name, where it says too little or means something else too.
SAID = {"person": "person with clothes, people, human", "bird": "bird avian"}
# What is around: add what often stands beside your classes.
BACKGROUND = (
    *("ground", "grass", "tree", "rock", "mountain", "snow", "sand", "sky", "cloud"),
    *("water", "river", "lake", "sea", "road", "railway", "bridge", "building", "house"),
    *("wall", "floor"),
)


def main(data: str | Path, out: str | Path, model: str, pretrained: str | None) -> None:
    """Write the texts' rows: class/NAME, background/WORD and the scale of their cosines."""
    network = open_clip.create_model(model, pretrained=pretrained).eval()
    classes = an.read_dataset(data).classes
    texts = {f"class/{name}": SAID.get(name, name) for name in classes}
    texts |= {f"background/{word}": word for word in BACKGROUND if word not in classes}
    tokens = open_clip.get_tokenizer(model)([PROMPT.format(text) for text in texts.values()])
    with torch.no_grad():
        rows = network.encode_text(tokens, normalize=True).float()
        scale = network.logit_scale.exp().float().reshape(1)
    named = {key: row.clone() for key, row in zip(texts, rows, strict=True)}
    save_file({**named, "scale": scale}, out, metadata={"model": f"{model} {pretrained}"})
    print(f"{out}: {len(classes)} classes, {len(texts) - len(classes)} words for the background")


if __name__ == "__main__":
    main(*sys.argv[1:])
