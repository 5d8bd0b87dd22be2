"""Links to MLflow lead to where `make mlflow` serves."""

import pytest

from flows.running import pages
from tasks.tracking.tracker import Page


def test_a_link_names_the_port_of_this_host_or_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(run="x", uri="sqlite:///x.db", link="/#/runs")
    monkeypatch.delenv("MLFLOW_PORT", raising=False)
    assert pages.mlflow_link(page) == "http://127.0.0.1:5000/#/runs"
    monkeypatch.setenv("MLFLOW_PORT", "5077")
    assert pages.mlflow_link(page) == "http://127.0.0.1:5077/#/runs"
    assert pages.mlflow_link(page._replace(uri="http://host:1/")) == "http://host:1/#/runs"
