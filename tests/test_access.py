"""What a method's stage reads, held against what its entry says it is given."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks import unlearn
from tasks.files.workspace import Workspace
from tests.conftest import change, make_workspace, tasks

pytestmark = pytest.mark.slow
ENTRIES = unlearn.entries()
QUICK = {"epochs": 1, "stop_at_target": False}


class Guarded:
    """An array that notes which rows were read, and can be read in no other way."""

    def __init__(self, array: np.ndarray):
        self.array, self.read = array, set[int]()
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        assert isinstance(rows, int | list)
        self.read |= set(np.atleast_1d(rows).tolist())
        return self.array[rows]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = make_workspace(tmp_path_factory.mktemp("access") / "workspace")
    quick = {
        name: entry | ({"sgd": entry["sgd"] | QUICK} if "sgd" in entry else {})
        for name, entry in ENTRIES.items()
    }
    change(root, {"unlearn": quick, "network": {"width": 8}, "train": {"epochs": 6}})
    for stage in ("split", "train", "influence"):
        tasks(root, stage)
    return Workspace(root)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_method_reads_the_samples_that_its_entry_names_and_no_others(
    prepared: Workspace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepared.dataset()
    images, labels = Guarded(whole.images), Guarded(whole.labels)
    guarded = replace(whole, images=images, labels=labels)
    monkeypatch.setattr(Workspace, "dataset", lambda self: guarded)
    unlearn.run(prepared, name)
    manifests = {"forget", ENTRIES[name]["data_access"]}
    rows = {int(row) for m in manifests for row in prepared.read_manifest(m)["index"]}
    assert images.read == rows
    assert labels.read == rows


def test_the_guard_sees_what_is_read() -> None:
    guard = Guarded(np.arange(6))
    assert guard[[1, 3]].tolist() == [1, 3]
    assert guard.read == {1, 3}
    with pytest.raises(AssertionError):
        guard[1:3]
