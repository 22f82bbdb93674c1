"""Clocks inside a run's stages: loading, network, kernels and writing, and the network's operators.

`watched` puts wrappers around the functions that all stages go through (`for_each`, `fit` and its
batches, the kernels of `ops/`, the writing of files) and takes them away again. A function's time
is without that of inner ones. Threads add up: beside a network on two cores, loading and writing
are seconds that were mostly not waited for.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from affinitynet import training
from affinitynet.stages import images

LOADING, NETWORK, KERNELS, WRITING = "loading", "network", "kernels", "writing"
# By name, wherever a module of the package holds them.
FUNCTIONS = {
    "load_image": LOADING,
    "load_cams": LOADING,
    "load_affinity": LOADING,
    "read_labels": LOADING,
    "affinity_of": KERNELS,
    "confident_labels": KERNELS,
    "dense_crf": KERNELS,
    "enlarge_scores": KERNELS,
    "label_scores": KERNELS,
    "nearest_distance": KERNELS,
    "random_walk": KERNELS,
    "refine_scores": KERNELS,
    "restart_walk": KERNELS,
    "walk_scores": KERNELS,
    "save_affinity": WRITING,
    "save_cams": WRITING,
    "save_scores": WRITING,
    "write_labels": WRITING,
}


class Operators(TorchDispatchMode):
    """FLOPs, bytes and seconds of the operators that run inside, by name.

    Convolutions are told apart by their groups. Bytes are those of all tensors read and written,
    as if none stayed in a cache. On a GPU, whose work is queued, the seconds mean nothing.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    @property
    def flops(self) -> float:
        """Count those of all operators."""
        return sum(row[0] for row in self.rows.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, or its parts where it is made of others."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        began = time.perf_counter()
        answer = func(*args, **kwargs)
        took = time.perf_counter() - began
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, answer)) if isinstance(t, Tensor)]
            row = self.rows[_name(packet, args)]
            if packet in flop_registry:
                row[0] += flop_registry[packet](*args, **kwargs, out_val=answer)
            row[1] += sum(t.numel() * t.element_size() for t in tensors)
            row[2] += took
        return answer


def _name(packet: Any, args: Any) -> str:
    name = str(packet).removeprefix("aten.")
    if name != "convolution":
        return name
    groups = args[8]
    if groups == 1:
        return "convolution 1x1" if args[1].shape[2:].numel() == 1 else "convolution"
    return "convolution, depthwise" if groups == args[0].shape[1] else "convolution, grouped"


class Network:
    """A function that calls a network: its calls, and the operators of some of them."""

    def __init__(self, function: Callable[..., Any], most: int, trained: bool) -> None:
        """Look into so many calls behind the first; those of a training go backward as well."""
        self._function, self._most, self._times = function, most, 3 if trained else 1
        self.calls = 0
        # The first call makes what later ones find made, so its times are of no interest.
        self.first, self.operators = Operators(), Operators()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        self.calls += 1
        if self.calls > 1 + self._most:
            return self._function(*args, **kwargs)
        with self.first if self.calls == 1 else self.operators:
            return self._function(*args, **kwargs)

    @property
    def flops(self) -> float:
        """Return those of all calls: forward, and three times that for steps of a training."""
        looked = min(self.calls - 1, self._most)
        one = self.operators.flops / looked if looked > 0 else self.first.flops
        return one * self.calls * self._times


class Clock:
    """What one stage did: seconds by kind, calls, and the operators of some calls."""

    def __init__(self, counted: int) -> None:
        """Start at nothing; so many calls of the network behind the first are looked into."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)  # that of the calling threads
        self.images = self.steps = 0
        self.networks: list[Network] = []
        self._counted = counted
        self.precision = torch.float32
        self._lock, self._local = threading.Lock(), threading.local()

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time, without that of inner ones, goes to a kind."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            inner = self._inner()
            inner.append((0.0, 0.0))
            began, busy = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took, worked = time.perf_counter() - began, time.thread_time() - busy
                inside, outside = inner.pop(), inner.pop()
                inner.append((outside[0] + took, outside[1] + worked))
                with self._lock:
                    self.seconds[kind] += took - inside[0]
                    self.processor[kind] += worked - inside[1]

        return wrapped

    def network(self, function: Callable[..., Any], trained: bool = False) -> Callable[..., Any]:
        """Wrap what calls a network, and look into some of the calls."""
        network = Network(function, self._counted, trained)
        self.networks.append(network)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if torch.is_autocast_enabled("cpu"):
                self.precision = torch.get_autocast_dtype("cpu")
            return network(*args, **kwargs)

        return wrapped

    @property
    def flops(self) -> float:
        """Return those of all calls."""
        return sum(network.flops for network in self.networks)

    @property
    def operators(self) -> dict[str, list[float]]:
        """Return the operators of the network that calculates most."""
        most = max(self.networks, key=lambda network: network.flops, default=None)
        return dict(most.operators.rows) if most else {}

    def _inner(self) -> list[tuple[float, float]]:
        if not hasattr(self._local, "inner"):
            self._local.inner = [(0.0, 0.0)]
        return self._local.inner  # type: ignore[no-any-return]


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Put the wrappers in place; the stage's module must be imported before."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if not name.startswith("affinitynet."):
                continue
            for function, kind in FUNCTIONS.items():
                if callable(original := vars(module).get(function)):
                    stack.enter_context(patch.object(module, function, clock.timed(kind, original)))
            if vars(module).get("for_each") is images.for_each and module is not images:
                stack.enter_context(patch.object(module, "for_each", _for_each(clock)))
            if vars(module).get("fit") is training.fit and module is not training:
                stack.enter_context(patch.object(module, "fit", _fit(clock)))
        stack.enter_context(patch.object(images, "for_each", _for_each(clock)))
        stack.enter_context(patch.object(training, "loading", _loading(clock)))
        step = training._Loop._step
        stack.enter_context(patch.object(training._Loop, "_step", clock.timed(NETWORK, step)))
        yield


def _for_each(clock: Clock) -> Callable[..., None]:
    original = images.for_each

    def counted(finish: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            clock.images += 1  # in one thread at a time
            finish(*args)

        return call

    def wrapped(name: str, samples: Any, **kwargs: Any) -> None:
        kwargs["load"] = clock.timed(LOADING, kwargs["load"])
        kwargs["compute"] = clock.timed(NETWORK, clock.network(kwargs["compute"]))
        kwargs["finish"] = clock.timed(WRITING, counted(kwargs["finish"]))
        original(name, samples, **kwargs)

    return wrapped


def _fit(clock: Clock) -> Callable[..., dict[str, float]]:
    original = training.fit

    def wrapped(name: str, model: Any, dataset: Any, losses: Any, *args: Any, **kwargs: Any) -> Any:
        return original(name, model, dataset, clock.network(losses, trained=True), *args, **kwargs)

    return wrapped


def _loading(clock: Clock) -> Callable[..., Any]:
    original = training.loading

    @contextmanager
    def wrapped(*args: Any) -> Iterator[Iterator[Any]]:
        with original(*args) as batches:
            yield _each(clock, batches)

    return wrapped


def _each(clock: Clock, batches: Iterator[Any]) -> Iterator[Any]:
    following = clock.timed(LOADING, lambda: next(batches, None))
    while (batch := following()) is not None:
        clock.steps += 1
        clock.images += len(next(t for t in tree_leaves(batch) if isinstance(t, Tensor)))
        yield batch
