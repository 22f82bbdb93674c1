"""The dense CRF's mean field on the CPU: the compiled kernels, or tensors where there are none."""

import logging
import threading
from collections.abc import Callable

from torch import Tensor

from affinitynet.ops._mean_field import Settings, mean_field
from affinitynet.ops._numba import CannotCompileError

MeanField = Callable[[Tensor, Tensor, Settings], Tensor]


class Choice:
    """The mean field that runs on this machine, chosen at the first image and kept."""

    def __init__(self) -> None:
        self._run: MeanField | None = None
        self._lock = threading.RLock()  # _choose calls _give_up while it holds it

    def __call__(self, image: Tensor, unary: Tensor, settings: Settings) -> Tensor:
        """Run the kernels; where they cannot be had, say so once and run on tensors.

        Args:
            image: (H, W, channels) float32.
            unary: (A, L, H * W) energies of A label sets, contiguous; may be overwritten.
            settings: those of `dense_crf`.

        Returns:
            Q, (A, L, H * W).
        """
        run = self._run or self._choose()
        try:
            return run(image, unary, settings)
        except CannotCompileError as error:
            return self._give_up(error.__cause__ or error)(image, unary, settings)

    def _choose(self) -> MeanField:
        with self._lock:
            if self._run is None:
                try:
                    # Not with the package: this rests on numba's internals, and most work of the
                    # package needs no CRF.
                    from affinitynet.ops._crf_cpu import mean_field as kernels
                except MemoryError:
                    raise
                except Exception as error:
                    return self._give_up(error)
                self._run = kernels
            return self._run

    def _give_up(self, reason: BaseException) -> MeanField:
        with self._lock:
            # Several threads may fail at the same time; one of them warns.
            if self._run is not mean_field:
                self._run = mean_field
                words = str(reason).strip().splitlines() or ["no reason given"]
                logging.getLogger("affinitynet").warning(
                    "the dense CRF's kernels do not compile here (%s: %s): it goes on without "
                    "them, with the same results but several times slower; install the version "
                    "of numba that pyproject.toml asks for",
                    type(reason).__name__,
                    words[0],
                )
        return mean_field


mean_field_cpu = Choice()
