import pytest
import torch
from torch import Tensor

from imu.training.augmentation import Moves, augmented, draw
from tests import oracles

N, HEIGHT, WIDTH = 6, 5, 4


def images(channels: int = 2) -> Tensor:
    drawn = torch.randint(1, 17, (N, channels, HEIGHT, WIDTH), generator=seeded(1))
    return drawn.to(torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def looped(images: Tensor, moves: Moves, shift: int) -> Tensor:
    """Image by image: shifted, then mirrored pixel by pixel."""
    found = oracles.shifted(images, *(moves.offsets - shift).tolist())
    for image, flipped in zip(found, moves.flips.tolist(), strict=True):
        if flipped:
            before = image.clone()
            for column in range(WIDTH):
                image[:, :, column] = before[:, :, WIDTH - 1 - column]
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2, 5])
def test_moves_equal_the_loop(shift, flip, channels):
    moves = draw(N, shift=shift, flip=flip, generator=seeded(9))
    for given in (images(channels), images(channels).double()):
        found = augmented(given, moves, shift=shift, flip=flip)
        assert found.dtype == given.dtype
        assert torch.equal(found, looped(given, moves, shift))


def test_offsets_and_flips_are_drawn_evenly():
    moves = draw(9000, shift=1, flip=True, generator=seeded(0))
    for offset in moves.offsets:
        # Five standard deviations of a binomial distribution.
        assert ((offset.bincount(minlength=3) - 3000).abs() < 5 * 45).all()
    assert abs(int(moves.flips.sum()) - 4500) < 5 * 48


def test_what_is_switched_off_changes_nothing_and_draws_nothing():
    generator = seeded(0)
    before = generator.get_state()
    moves = draw(N, shift=0, flip=False, generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(augmented(images(), moves, shift=0, flip=False), images())
    shifted = draw(N, shift=2, flip=False, generator=seeded(3))
    expected = torch.randint(0, 5, (2, N, 1), generator=seeded(3))[..., 0]
    assert torch.equal(shifted.offsets, expected)
    assert torch.equal(shifted.offsets, draw(N, shift=2, flip=True, generator=seeded(3)).offsets)
