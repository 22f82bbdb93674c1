"""The fast form of a function where it can be had, and its form in tensors elsewhere."""

import logging
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from affinitynet.ops._numba import CannotCompileError

Form = Callable[..., Tensor]
_TOLERANCE = 1e-3  # between what rounding changes and what a wrong kernel does


class Choice:
    """The form that runs on a device, chosen at the first call there and kept.

    Args:
        plain: the form in tensors.
        load: imports the fast form, which takes the same arguments, a tensor first; or returns the
            plain one where nobody expects another.
        problem: what the warning says where the fast form can't be had.
        advice: what the user can do then.
        example: makes arguments on a device, for which both forms have to agree.
    """

    def __init__(
        self,
        plain: Form,
        load: Callable[[], Form],
        problem: str,
        advice: str,
        example: Callable[[torch.device], Sequence[Any]] | None = None,
    ) -> None:
        self.plain = plain
        self._load, self._example = load, example
        self._problem, self._advice = problem, advice
        self._chosen: dict[torch.device, Form] = {}
        self._lock = threading.RLock()  # _choose calls _give_up while it holds it

    def __call__(self, first: Tensor, *others: Any) -> Tensor:
        """Run the fast form; where it cannot be had, say so once and run the plain one."""
        device = first.device
        run = self._chosen.get(device) or self._choose(device)
        try:
            return run(first, *others)
        except CannotCompileError as error:
            return self._give_up(device, error.__cause__ or error)(first, *others)

    def _choose(self, device: torch.device) -> Form:
        with self._lock:
            if device not in self._chosen:
                try:
                    fast = self._load()
                    if self._example and fast is not self.plain:
                        _compare(fast, self.plain, self._example(device))
                except (MemoryError, torch.OutOfMemoryError):
                    raise
                except Exception as error:
                    return self._give_up(device, error.__cause__ or error)
                self._chosen[device] = fast
            return self._chosen[device]

    def _give_up(self, device: torch.device, reason: BaseException) -> Form:
        with self._lock:
            # Several threads may fail at the same time; one of them warns.
            if self._chosen.get(device) is not self.plain:
                self._chosen[device] = self.plain
                words = str(reason).strip().splitlines() or ["no reason given"]
                logging.getLogger("affinitynet").warning(
                    "%s (%s: %s): it goes on without them, with the same results but several "
                    "times slower; %s",
                    self._problem,
                    type(reason).__name__,
                    words[0],
                    self._advice,
                )
        return self.plain


def triton_choice(
    plain: Form,
    load: Callable[[], Form],
    whose: str,
    example: Callable[[torch.device], Sequence[Any]],
) -> Choice:
    """Return the choice for GPUs, where Triton's kernels are the fast form.

    Torch comes without Triton for Windows: there the plain form runs, and nothing is said.
    """
    return Choice(
        plain,
        lambda: load() if find_spec("triton") else plain,
        f"{whose} Triton kernels do not work here",
        "install the version of triton that torch asks for",
        example,
    )


def _compare(fast: Form, plain: Form, arguments: Sequence[Any]) -> None:
    error = float((fast(*arguments) - plain(*arguments)).abs().max())
    if not error <= _TOLERANCE:  # nor is NaN
        raise ArithmeticError(f"an answer is wrong by {error:g}")
