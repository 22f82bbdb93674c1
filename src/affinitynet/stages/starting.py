"""What a network's training starts from: the run's own classifier, or pretrained weights."""

from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.stages import trains_classifier
from affinitynet.stages.context import Context


def classifier_to_start_from(context: Context, start: str) -> Classifier | None:
    """Return the run's classifier where `start` names it and the run trains one, else None."""
    if start != "classifier" or not trains_classifier(context.recipe):
        return None
    return Classifier.load(context.folder(CLASSIFIER))
