import hashlib

import numpy as np
import pytest

from imu import discovery
from imu.datasets import digits

DATASETS = discovery.names("imu.datasets")


def hashes(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", DATASETS)
def test_writing_twice_gives_the_same_bytes(name, tmp_path):
    module = discovery.load("imu.datasets", name)
    module.write(tmp_path / "a")
    module.write(tmp_path / "deep" / "b")
    module.write(tmp_path / "a")  # over what is there
    assert hashes(tmp_path / "a") == hashes(tmp_path / "deep" / "b") != {}


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_keeps_the_contract(name, tmp_path):
    module = discovery.load("imu.datasets", name)
    module.write(tmp_path)
    data = module.load(tmp_path)
    n = len(data.labels)
    assert data.images.dtype == np.uint8
    assert data.images.ndim == 4
    assert data.images.shape[0] == n > 0
    assert data.images.shape[1] in (1, 3)
    assert data.labels.dtype == np.int64
    assert data.labels.shape == data.ids.shape == (n,)
    assert data.ids.dtype.kind == "U"
    assert len(set(data.ids)) == n
    assert len(set(data.classes)) == len(data.classes)
    assert sorted(set(data.labels.tolist())) == list(range(len(data.classes)))
    mean, std = (np.array(numbers)[:, None, None] for numbers in (data.mean, data.std))
    inputs = (data.images / data.scale - mean) / std
    # mean and std are stored to three or four digits.
    assert np.allclose(inputs.mean((0, 2, 3)), 0, atol=0.01)
    assert np.allclose(inputs.std((0, 2, 3)), 1, atol=0.01)


def test_digits_are_those_of_scikit_learn(tmp_path):
    from sklearn.datasets import load_digits

    digits.write(tmp_path)
    data, source = digits.load(tmp_path), load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert np.array_equal(data.images[:, 0], source.images)
    assert np.array_equal(data.labels, source.target)
    assert data.classes == tuple("0123456789")
    assert (data.ids[0], data.ids[-1]) == ("digits-0000", "digits-1796")
    assert data.images.max() == data.scale


@pytest.mark.parametrize("name", digits.SHA256)
def test_a_changed_file_is_refused(name, tmp_path):
    digits.write(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not the published data set.*restore it"):
        digits.load(tmp_path)


@pytest.mark.parametrize("name", digits.SHA256)
def test_a_missing_file_is_named(name, tmp_path):
    digits.write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing: run `make data`"):
        digits.load(tmp_path)


def test_an_unknown_data_set_is_told_the_choices():
    with pytest.raises(ValueError, match=r"imu\.datasets has no 'x': choose from .*digits"):
        discovery.load("imu.datasets", "x")
