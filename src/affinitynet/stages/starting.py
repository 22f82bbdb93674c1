"""What a network's training starts from: the run's own classifier, or pretrained weights."""

import torch

from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.stages import trains_classifier
from affinitynet.stages.context import Context


def classifier_to_start_from(context: Context, start: str) -> Classifier | None:
    """Return the run's classifier where `start` names it and the run trains one, else None.

    Afterwards torch's random numbers are those of the recipe's seed, for the network's new layers.
    """
    found = None
    if start == "classifier" and trains_classifier(context.recipe):
        found = Classifier.load(context.folder(CLASSIFIER))
    # After it, as what is loaded is drawn at random first.
    torch.manual_seed(context.recipe.seed)
    return found
