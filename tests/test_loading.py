from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imu.datasets import LabelledImages
from imu.training import distributed, loading
from imu.training.feeds.classification import sourced
from tests.test_training import CONFIG, CPU, same, separable, trained

ROWS = list(range(70, 10, -1))


def mapped(folder: Path) -> LabelledImages:
    """Images as a memory map of a file."""
    data = separable()
    np.save(folder / "images.npy", data.images)
    return replace(data, images=np.load(folder / "images.npy", mmap_mode="r"))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_batches_equal_those_in_memory(workers, tmp_path):
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).split(7)
    resident = loading.source(separable(), ROWS, CPU, share=1.0, workers=workers)
    streamed = loading.source(mapped(tmp_path), ROWS, CPU, share=0.0, workers=workers)
    assert isinstance(resident, loading.Resident)
    assert isinstance(streamed, loading.Streamed)
    for epoch in (order, order[:3], order[::-1]):
        pairs = list(zip(resident.batches(epoch), streamed.batches(epoch), strict=True))
        assert len(pairs) == len(epoch)
        for chosen, (one, other) in zip(epoch, pairs, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
            rows = [ROWS[i] for i in chosen.tolist()]
            assert np.array_equal(one[0].numpy(), separable().images[rows])
            assert np.array_equal(one[1].numpy(), separable().labels[rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_trains_the_same_weights(workers, tmp_path):
    config = replace(CONFIG, epochs=2, shift=1, flip=True, workers=workers)
    expected, _ = trained(separable(), ROWS, config)
    models = []
    for data in (separable(), mapped(tmp_path)):
        model, _ = trained(data, ROWS, replace(config, memory_share=0.0))
        models.append(model)
    assert all(same(expected, model) for model in models)


def test_streaming_draws_nothing_from_the_generator_of_torch():
    source = loading.source(separable(), ROWS, CPU, share=0.0, workers=1)
    state = torch.get_rng_state()
    list(source.batches([torch.tensor([3, 1])]))
    assert torch.equal(state, torch.get_rng_state())


def test_images_stream_when_they_take_more_than_their_share(monkeypatch):
    size = len(ROWS) * separable().images[0].nbytes
    monkeypatch.setattr(loading, "free_memory", lambda device: 2 * size)
    for share, kind in [(0.5, loading.Resident), (0.499, loading.Streamed)]:
        source = loading.source(separable(), ROWS, CPU, share=share, workers=0)
        assert isinstance(source, kind)
    config = replace(CONFIG, memory_share=0.5)
    two = distributed.World(0, 2)
    assert isinstance(sourced(separable(), ROWS, config, CPU, two), loading.Streamed)
    assert isinstance(sourced(separable(), ROWS, config, CPU, distributed.ALONE), loading.Resident)


def test_free_memory_is_a_part_of_all():
    assert 0 < loading.free_memory(CPU) <= 1 << 50
