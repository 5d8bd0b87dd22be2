import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from imu import discovery
from imu.datasets import Source, digits, made_from
from imu.datasets.common import cifar
from tests import tiny_sources

DATASETS = [  # of images
    name
    for name in discovery.names("imu.datasets")
    if not hasattr(discovery.load("imu.datasets", name), "OBJECTIVE")
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    from torchvision.datasets import utils

    def refused(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr(utils, "_get_redirect_url", refused)
    monkeypatch.setattr(utils, "_urlretrieve", refused)


@pytest.fixture
def source(name, tmp_path, monkeypatch) -> Source:
    """A tiny source in the published format where there is one."""
    if name in tiny_sources.BUILDERS:
        return tiny_sources.make(name, tmp_path / "source", monkeypatch).source
    return Source()


def hashes(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", DATASETS)
def test_writing_twice_gives_the_same_bytes(name, source, tmp_path):
    module = discovery.load("imu.datasets", name)
    module.write(tmp_path / "a", source)
    module.write(tmp_path / "deep" / "b", source)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "deep" / "b") != {}


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_keeps_the_contract(name, source, tmp_path):
    module = discovery.load("imu.datasets", name)
    (tmp_path / "a").mkdir()  # an empty folder is as good as none
    module.write(tmp_path / "a", source)
    data = module.load(tmp_path / "a")
    n = len(data.labels)
    assert data.labels.dtype == np.int64
    assert data.labels.shape == data.ids.shape == (n,)
    assert data.ids.dtype.kind == "U"
    assert len(set(data.ids)) == n > 0
    assert len(set(data.classes)) == len(data.classes)
    assert sorted(set(data.labels.tolist())) == list(range(len(data.classes)))
    assert len({data.content(row) for row in range(n)}) > 1
    for values in data.attributes.values():
        assert values.dtype.kind == "U"
        assert values.shape == (n,)
    if data.published_test is not None:
        assert data.published_test.dtype == bool
        assert 0 < data.published_test.sum() < n
    if data.objective == "language":
        assert set(data.attributes) >= {data.together}
        return
    assert data.images.dtype == np.uint8
    assert data.images.ndim == 4
    assert data.images.shape[0] == n > 0
    assert data.images.shape[1] in (1, 3)
    mean, std = (np.array(numbers)[:, None, None] for numbers in (data.mean, data.std))
    inputs = (data.images / data.scale - mean) / std
    # mean and std are stored to three or four digits.
    assert np.allclose(inputs.mean((0, 2, 3)), 0, atol=0.01)
    assert np.allclose(inputs.std((0, 2, 3)), 1, atol=0.01)


@pytest.mark.parametrize("name", tiny_sources.BUILDERS)
def test_what_is_packed_is_what_was_published(name, tmp_path, monkeypatch):
    tiny = tiny_sources.make(name, tmp_path / "source", monkeypatch)
    module = discovery.load("imu.datasets", name)
    module.write(tmp_path / "a", tiny.source)
    data = module.load(tmp_path / "a")
    assert np.array_equal(data.images, tiny.images)
    assert data.labels.tolist() == tiny.labels.tolist()
    assert list(data.classes) == tiny.classes
    n = len(tiny.labels)
    assert data.published_test.tolist() == [row >= n - tiny.n_test for row in range(n)]
    assert {key: values.tolist() for key, values in data.attributes.items()} == tiny.attributes
    recorded = tiny.source if name in ("image_folder", "image_table") else None
    assert made_from(tmp_path / "a") == recorded


@pytest.mark.parametrize("name", tiny_sources.PUBLISHED)
def test_published_samples_are_named_by_their_row(name, tmp_path, monkeypatch):
    tiny = tiny_sources.make(name, tmp_path / "source", monkeypatch)
    module = discovery.load("imu.datasets", name)
    module.write(tmp_path / "a", tiny.source)
    ids = module.load(tmp_path / "a").ids
    assert (ids[0], ids[-1]) == (f"{name}-00000", f"{name}-{len(ids) - 1:05d}")


@pytest.mark.parametrize("name", tiny_sources.PUBLISHED)
def test_without_archives_and_network_it_says_what_to_put_where(name, tmp_path):
    where = tmp_path / "downloads"
    folder = where / "FashionMNIST" / "raw" if name == "fashion_mnist" else where
    with pytest.raises(FileNotFoundError) as caught:
        discovery.load("imu.datasets", name).write(tmp_path / "a", Source(path=str(where)))
    message = str(caught.value)
    assert f"neither all in {folder} nor could they be downloaded" in message
    assert "no network here" in message
    files = {
        "cifar10": ["cifar-10-python.tar.gz"],
        "svhn": ["train_32x32.mat", "test_32x32.mat"],
        "fashion_mnist": [
            f"{part}-{kind}-ubyte.gz"
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ],
    }
    for file in files.get(name, ["cifar-100-python.tar.gz"]):
        assert f"  {file} from http" in message
    assert message.count(": missing") == message.count(", MD5 ") == message.count("\n")
    assert not (tmp_path / "a").exists()


def test_a_damaged_archive_is_told_from_a_missing_one(tmp_path, monkeypatch):
    tiny = tiny_sources.make("svhn", tmp_path / "source", monkeypatch)
    with (tmp_path / "source" / "test_32x32.mat").open("ab") as file:
        file.write(b"x")
    with pytest.raises(FileNotFoundError) as caught:
        discovery.load("imu.datasets", "svhn").write(tmp_path / "a", tiny.source)
    _, train, test = str(caught.value).splitlines()
    assert train.endswith(": is there")
    assert ": is there, but its MD5 is " in test


def test_a_silent_server_does_not_hold_up_the_download_for_ever(tmp_path, monkeypatch):
    import socket

    from torchvision.datasets import utils

    seen = []
    monkeypatch.setattr(
        utils, "_get_redirect_url", lambda url, **_: seen.append(socket.getdefaulttimeout()) or url
    )
    with pytest.raises(FileNotFoundError, match="no network here"):
        discovery.load("imu.datasets", "cifar10").write(
            tmp_path / "a", Source(path=str(tmp_path / "downloads"))
        )
    assert seen == [30.0]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 7}, r"size must be in \[8, 4096\], got 7"),
        ({"path": ""}, "path must name a folder"),
        ({"sequences": (10**15, 1)}, r"sequences must be a number in \[1, 1000000\] for each"),
        ({"people": 2}, r"people must be in \[3, 10000\], got 2"),
        ({"seed": -1}, r"seed must be in \[0, 4294967296\), got -1"),
        ({"resize": 31}, r"resize must be 0, or >= size \(32\) where fit is 'crop', got 31 with"),
        ({"resize": 40, "fit": "stretch"}, "got 40 with 'stretch'"),
    ],
)
def test_sources_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Source(**fields)


def test_the_digits_need_no_source(tmp_path):
    digits.write(tmp_path)
    before = hashes(tmp_path)
    digits.write(tmp_path, Source(path="nowhere"))  # over what is there
    assert hashes(tmp_path) == before
    assert made_from(tmp_path) is None


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


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "data_batch_3"),
        ("cifar10", "batches.meta"),
        ("cifar100", "test"),
        ("cifar100_super", "meta"),
    ],
)
def test_code_in_an_archive_is_not_run(name, file, tmp_path, monkeypatch):
    """Not even where the checksums are those of the file that holds it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    proof, published = tmp_path / "proof", CIFAR10 if name == "cifar10" else CIFAR100
    tiny_sources.make(name, tmp_path / "source", monkeypatch)
    with tarfile.open(tmp_path / "source" / published.filename) as archive:
        members = {
            Path(info.name).name: archive.extractfile(info).read() for info in archive.getmembers()
        }
    members[file] = pickle.dumps(
        {**pickle.loads(members[file]), "more": tiny_sources.Malicious(proof)}
    )
    tiny_sources.tarred(tmp_path / "other", published, members, monkeypatch)
    module = discovery.load("imu.datasets", name)
    with pytest.raises(ValueError, match=rf"{file} holds more than arrays, .* builtins\.exec"):
        module.write(tmp_path / "a", Source(path=str(tmp_path / "other")))
    assert not proof.exists()
    assert not (tmp_path / "a").exists()
    pickle.loads(members[file])
    assert proof.exists()  # it would have run


def test_arrays_of_python_2_are_read(tmp_path):
    """As they were published: protocol 2, text without encoding, names of numpy 1."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\xfetb"
    )
    content = b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x03aU\x05namesU\x03m\xfclu."
    (tmp_path / "batch").write_bytes(content)
    found = cifar._unpickled(tmp_path / "batch")
    assert found["data"].dtype == np.uint8
    assert found["data"].tolist() == [[1, 254]]
    assert (found["labels"], found["names"]) == ([3], "mül")
