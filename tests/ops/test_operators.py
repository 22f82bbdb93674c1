"""The public operations under torch.compile, torch.export and torch.func.

The graph is run by torch itself (aot_eager): what is tested is that it is whole and right.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import affinitynet as an
from affinitynet.ops import affinity as pairs
from affinitynet.ops import boundary, crf
from affinitynet.ops.random_walk import _walk, _walk_backward

# What older torches say of their own code while they trace.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore::UserWarning:torch"
)
RADIUS = 3


def maps(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def image() -> Tensor:
    return (255 * maps(9, 11, 3)).to(torch.uint8)


FEATURES, BOUNDARY, MAPS = maps(2, 5, 9, 11), maps(2, 9, 11), maps(2, 3, 9, 11)
AFFINITY = an.ops.pairwise_affinity(FEATURES, RADIUS)
LABELS = torch.randint(0, 3, (2, 9, 11), generator=torch.Generator().manual_seed(0))
# A public operation, with arguments that its graph is made for.
OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "pairwise_affinity": (lambda x: an.ops.pairwise_affinity(x, RADIUS), (FEATURES,)),
    "boundary_affinity": (lambda x: an.ops.boundary_affinity(x, RADIUS), (BOUNDARY,)),
    "feature_affinity": (lambda x: an.ops.feature_affinity(x, RADIUS, 2.0), (FEATURES,)),
    "random_walk": (
        lambda x, a: an.ops.random_walk(x, a, steps=40, radius=RADIUS),
        (MAPS, AFFINITY),
    ),
    "restart_walk": (
        lambda x, a: an.ops.restart_walk(x, a, restart=0.1, radius=RADIUS),
        (MAPS, AFFINITY),
    ),
    "affinity_loss": (
        lambda a, y: an.ops.affinity_loss(a, an.ops.affinity_targets(y, RADIUS)).total,
        (AFFINITY, LABELS),
    ),
    "dense_crf": (lambda i, p: an.ops.dense_crf(i, p, iterations=2), (image(), maps(3, 9, 11))),
    "boundary_loss": (an.ops.boundary_loss, (MAPS, MAPS.softmax(1))),
    "class_activation_maps": (an.ops.class_activation_maps, (FEATURES, maps(3, 5))),
    "normalize_cams": (an.ops.normalize_cams, (MAPS,)),
    "background_map": (lambda x: an.ops.background_map(x, 4.0), (MAPS,)),
    "label_scores": (an.ops.label_scores, (maps(3, 9, 11),)),
}
LEARNING = ("pairwise_affinity", "boundary_affinity", "random_walk", "restart_walk")


@pytest.mark.parametrize("name", OPERATIONS)
def test_compiled_as_one_graph_it_is_the_same(name: str) -> None:
    function, arguments = OPERATIONS[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), function(*arguments))


@pytest.mark.parametrize("name", LEARNING)
def test_compiled_it_has_the_same_gradient(name: str) -> None:
    function, arguments = OPERATIONS[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")

    def gradients(run: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [argument.clone().requires_grad_() for argument in arguments]
        result = run(*leaves)
        (result * maps(*result.shape)).sum().backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    mine, expected = gradients(compiled), gradients(function)
    assert len(mine) == len(arguments)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_exported_it_is_the_same(name: str) -> None:
    function, arguments = OPERATIONS[name]

    class Module(nn.Module):
        def forward(self, *given: Tensor) -> Any:
            return function(*given)

    program = torch.export.export(Module(), arguments)
    torch.testing.assert_close(program.module()(*arguments), function(*arguments))


@pytest.mark.parametrize("name", LEARNING)
def test_torch_func_differentiates_and_maps_over_it(name: str) -> None:
    function, arguments = OPERATIONS[name]
    weight = maps(*function(*arguments).shape)

    def scalar(*given: Tensor) -> Tensor:
        return (function(*given) * weight).sum()

    leaves = [argument.clone().requires_grad_() for argument in arguments]
    expected = torch.autograd.grad(scalar(*leaves), leaves)
    found = torch.func.grad(scalar, argnums=tuple(range(len(arguments))))(*arguments)
    torch.testing.assert_close(found, expected)
    # Over the batch, image by image.
    single = tuple(argument[:, None] for argument in arguments)
    together = torch.vmap(function)(*single)
    torch.testing.assert_close(together[:, 0], function(*arguments))
    each = torch.vmap(torch.func.grad(lambda *given: function(*given).square().sum()))(*single)
    leaf = arguments[0].clone().requires_grad_()
    function(leaf, *arguments[1:]).square().sum().backward()
    torch.testing.assert_close(each[:, 0], leaf.grad)


def test_the_operators_keep_torchs_contract() -> None:
    """Schema, fake results' shapes and strides, registration of the derivative: `opcheck`."""
    steps = [step for offset in pairs.displacements(RADIUS) for step in offset]
    torch.library.opcheck(pairs._pair_distance, (FEATURES, float(RADIUS)))
    torch.library.opcheck(pairs._pair_distance, (FEATURES.double(), float(RADIUS)))
    grad = pairs._pair_distance(FEATURES, float(RADIUS)).contiguous()
    torch.library.opcheck(pairs._pair_distance_backward, (FEATURES, grad, float(RADIUS)))
    torch.library.opcheck(boundary._largest_on_line, (BOUNDARY, float(RADIUS), True))
    places = boundary._largest_on_line(BOUNDARY, float(RADIUS), True)[1]
    torch.library.opcheck(boundary._largest_on_line_backward, (places, grad, float(RADIUS)))
    torch.library.opcheck(boundary._largest_on_line, (BOUNDARY, float(RADIUS), False))
    torch.library.opcheck(_walk, (MAPS, AFFINITY, steps, [0.0, 0.5, 0.5]))
    walked = (MAPS, AFFINITY, MAPS, steps, [0.0, 0.5, 0.5])
    torch.library.opcheck(_walk_backward, walked)
    numbers = [3.0, 3.0, 80.0, 13.0, 10.0]
    unary = maps(1, 3, 99)
    torch.library.opcheck(crf._mean_field, (image().float(), unary, 2, numbers, [0, 0]))


def test_a_second_derivative_is_refused() -> None:
    features = FEATURES.clone().requires_grad_()
    total = an.ops.pairwise_affinity(features, RADIUS).square().sum()
    (first,) = torch.autograd.grad(total, features, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()
