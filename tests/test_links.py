"""Links lead to where `make mlflow` and `make prefect` serve."""

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from flows.running import pages, server
from tasks.tracking.tracker import Page


def test_a_link_names_the_port_of_this_host_or_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(run="x", uri="sqlite:///x.db", link="/#/runs")
    monkeypatch.delenv("MLFLOW_PORT", raising=False)
    assert pages.mlflow_link(page) == "http://127.0.0.1:5000/#/runs"
    monkeypatch.setenv("MLFLOW_PORT", "5077")
    assert pages.mlflow_link(page) == "http://127.0.0.1:5077/#/runs"
    assert pages.mlflow_link(page._replace(uri="http://host:1/")) == "http://host:1/#/runs"


def test_a_link_to_a_server_that_ends_leads_to_the_one_that_has_its_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_PORT", "4277")
    said = "http://127.0.0.1:4277/runs/flow-run/1"
    for given in ({PREFECT_UI_URL: ""}, {PREFECT_API_URL: None, PREFECT_UI_URL: None}):
        with temporary_settings(given):
            assert server.run_link("1") == said
    with temporary_settings({PREFECT_API_URL: "http://host:4200/api", PREFECT_UI_URL: None}):
        assert server.run_link("1") == "http://host:4200/runs/flow-run/1"
