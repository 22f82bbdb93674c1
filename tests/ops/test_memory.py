"""The memory that kernels keep between calls, and what must not be seen of it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from affinitynet.ops import _crf_cpu, _memory, dense_crf
from affinitynet.ops._memory import LINE, Memory, fresh


def test_arrays_begin_with_a_cache_line_and_lie_apart():
    memory = Memory()
    for _ in range(2):  # in the second round from the memory that was kept
        memory.clear()
        arrays = [memory.new((3, 5), np.float32), memory.new((7,), np.int64), fresh((2,), np.uint8)]
        for number, array in enumerate(arrays):
            assert array.ctypes.data % LINE == 0
            array[:] = number
        assert [array.shape for array in arrays] == [(3, 5), (7,), (2,)]
        assert [array.dtype for array in arrays] == [np.float32, np.int64, np.uint8]
        assert all((array == number).all() for number, array in enumerate(arrays))


def test_memory_is_used_again_and_grows_where_it_is_too_small():
    memory = Memory()
    memory.new((100,), np.float32)
    memory.clear()
    first = memory.new((100,), np.float32)
    assert not np.shares_memory(first, memory.new((1,), np.float32))  # no room: elsewhere
    memory.clear()
    again = memory.new((100,), np.float32)
    memory.clear()
    assert np.shares_memory(again, memory.new((100,), np.float32))


def test_no_more_is_kept_than_a_limit(monkeypatch):
    monkeypatch.setattr(_memory, "MOST", 256)
    memory = Memory()
    kept = []
    for _ in range(3):
        memory.clear()
        small, large = memory.new((64,), np.uint8), memory.new((1000,), np.uint8)
        assert len(large) == 1000
        assert not np.shares_memory(small, large)
        kept.append(small)
    assert np.shares_memory(kept[1], kept[2])
    assert len(memory._buffer) == 256


def case(seed: int, side: int = 40, labels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (side, side + 7, 3), generator=generator, dtype=torch.uint8)
    return image, torch.rand(labels, side, side + 7, generator=generator)


def test_a_refinement_is_not_changed_by_the_next_one():
    image, probabilities = case(0)
    given = probabilities.clone()
    first = dense_crf(image, probabilities)
    kept = first.clone()
    dense_crf(*case(1))
    dense_crf(*case(2, side=60, labels=21))  # more memory
    assert torch.equal(first, kept)
    assert torch.equal(probabilities, given)
    assert torch.equal(dense_crf(image, probabilities), kept)


def test_threads_do_not_share_memory():
    cases = [case(seed, side=30 + seed) for seed in range(8)]
    alone = [dense_crf(*each) for each in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: dense_crf(*each), cases * 3))
    assert all(torch.equal(a, b) for a, b in zip(together, alone * 3, strict=True))


def test_lattices_of_more_points_than_expected(monkeypatch):
    image, probabilities = case(3, side=50)
    expected = dense_crf(image, probabilities)
    monkeypatch.setattr(_crf_cpu, "ROOM", 1 << 10)  # then 1 << 12, anew
    assert torch.equal(dense_crf(image, probabilities), expected)


def test_large_images_do_not_keep_memory(monkeypatch):
    image, probabilities = case(4)
    expected = dense_crf(image, probabilities)
    monkeypatch.setattr(_crf_cpu, "_memory", memory := Memory())
    monkeypatch.setattr(_crf_cpu, "KEPT", image.shape[0])
    assert torch.equal(dense_crf(image, probabilities), expected)
    memory.clear()
    assert len(memory._buffer) <= LINE


def test_what_was_in_the_memory_does_not_matter(monkeypatch):
    image, probabilities = case(5)
    expected = dense_crf(image, probabilities)
    for garbage in (np.nan, np.inf, -np.inf, 1e38):
        monkeypatch.setattr(_crf_cpu, "_memory", memory := Memory())
        memory.new((1 << 23,), np.float32)
        memory.clear()
        memory.new((1 << 23,), np.float32)[:] = garbage
        assert torch.equal(dense_crf(image, probabilities), expected)
