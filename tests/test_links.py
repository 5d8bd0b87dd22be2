"""Links lead to where `make mlflow` and `make prefect` serve."""

import pytest

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
    monkeypatch.setattr(server, "_PASSING", ["http://127.0.0.1:35333"])
    monkeypatch.setenv("PREFECT_PORT", "4277")
    assert server.lasting("http://127.0.0.1:35333/runs/1") == "http://127.0.0.1:4277/runs/1"
    assert server.lasting("http://host:4200/runs/1") == "http://host:4200/runs/1"
