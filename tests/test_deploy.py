"""What a deploy sets up at a Prefect server, and takes away."""

import sys
import tomllib
from functools import reduce
from pathlib import Path

import httpx
import pytest
from prefect.settings import get_current_settings

from benchmarks.orchestration import server
from tasks.files.params import flattened
from tests.conftest import REPOSITORY, run, with_prefect

TELLING = {"imu: tell of failures", "imu: tell of unwanted verdicts"}


@pytest.mark.slow
@pytest.mark.long
def test_a_deploy_without_webhook_removes_what_an_earlier_one_set(
    tmp_path: Path, prefect_database: Path
) -> None:
    with_prefect(tmp_path, prefect_database)

    def deploy(**webhook: str) -> str:
        call = (sys.executable, "-m", "flows.deploy")
        return run(*call, cwd=REPOSITORY, **address, **webhook).stdout

    def asked(path: str) -> set[str]:
        found = httpx.post(f"{address['PREFECT_API_URL']}/{path}/filter", json={})
        return {entry["name"] for entry in found.raise_for_status().json()}

    with server(tmp_path) as (address, _):
        deploy(IMU_WEBHOOK="http://127.0.0.1:9/hook")
        assert asked("automations") == {"imu: crashed runs", *TELLING}
        assert "imu" in asked("block_documents")
        said = deploy()
        assert asked("automations") == {"imu: crashed runs"}
        assert "imu" not in asked("block_documents")  # which holds the address
        for name in TELLING:
            assert f"automation “{name}” removed: IMU_WEBHOOK is not set" in said
        assert "removed" not in deploy()


def test_prefect_knows_every_setting_of_prefect_toml() -> None:
    """It passes over those that it does not know."""
    settings = flattened(tomllib.loads((REPOSITORY / "prefect.toml").read_text()))
    for path, value in settings.items():
        found = reduce(getattr, path.split("."), get_current_settings())
        assert found == value or path == "home", path  # the tests set that to a folder
