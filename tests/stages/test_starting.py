"""What trainings start from: the run's classifier, and a head that the seed alone decides."""

import dataclasses

import torch

import affinitynet as an
from affinitynet.stages.train_segmenter import _make_net, _start_net


def test_the_head_does_not_depend_on_what_was_loaded_before(finished: an.Run) -> None:
    recipe = finished.recipe
    settings = recipe.segmenter.model_copy(update={"start": "classifier"})
    recipe = recipe.model_copy(update={"segmenter": settings})
    torch.manual_seed(recipe.seed)
    expected = _make_net(recipe, finished.manifest, pretrained=False).network.decoder.state_dict()
    net = _start_net(dataclasses.replace(finished.context, recipe=recipe))
    found = net.network.decoder.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
