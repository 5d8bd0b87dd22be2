"""The report says what the metrics say, in the same bytes every time."""

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flows import pipeline
from flows.running import pages
from flows.running.failures import EXPLAINED
from flows.running.pages import UnchangedError
from flows.running.requests import Method
from imu import metrics
from imu.datasets import digits
from tasks import report
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, digest
from tasks.pages import figures, findings, lineup, report_page
from tasks.tracking.record import record

PARAMETERS = """\
# <script>alert("parameters")</script>
seed: 3
split: {dataset: digits}
original: {checkpoint: "", retrain: true}
pixels: {mean: [], std: []}
retrain: {retrain_2: {seed_offset: 1000}, reference: {seed_offset: 0}}
ensemble: {members: 3, families: {}, judged: {}}
unlearn:
  ours: {method: imu}
  nothing: {method: nothing}
  logit_mask: {method: logit_mask}
  other: {method: gradient_ascent}
verdict: {forgetting: 3.0, utility: 2.0, membership: 5.0, features: 5.0, distance: 0.02,
  samples: 10.0}
"""
FORGET = 20
VALUES = {  # FA, RA, TFA, TA, gap, gap_acc, MIA, TV, probe_5, and RTE_work where there was work
    "reference": (0.0, 100.0, 0.0, 99.5, 0.0, 0.0, 98.25, 0.0, 60.0),
    "retrain_2": (1.25, 99.75, 2.5, 98.75, 1.3125, 1.1875, 97.0, 0.0625, 62.0),
    "nothing": (100.0, 99.875, 97.5, 98.5, 58.78125, 49.65625, 1.5, 0.125, 97.0),
    "logit_mask": (0.0, 99.875, 0.0, 98.125, 0.40625, 0.375, 98.25, 0.05, 97.0, 210.5),
    "ours": (0.0, 99.875, 0.0, 98.125, 0.40625, 0.375, 98.25, 0.045, 66.5, 180.25),
    "other": (0.0, 92.0, 0.0, 91.0, 25.5625, 4.125, 12.5, 0.25, 55.0, 31.75),
}
NAMES = ("FA", "RA", "TFA", "TA", "gap", "gap_acc", "MIA", "TV", "probe_5", "RTE_work")
PLACES = dict(zip(NAMES, (2, 2, 2, 2, 2, 2, 2, 4, 2, 1), strict=True))
RETRAINED = ("reference", "retrain_2", "retrain_3")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace up to and including evaluate, with small made-up results."""
    workspace = Workspace(tmp_path_factory.mktemp("prepared"))
    (workspace.root / "params.yaml").write_text(PARAMETERS)
    digits.write(workspace.root / "data" / "digits")
    data = workspace.dataset()
    eights = np.flatnonzero(data.labels == 8)[:FORGET]
    rows = {"forget": eights, "retain": np.arange(30), "test": np.arange(40, 60)}
    rows |= {"train": np.concatenate([rows["retain"], eights]), "validation": np.arange(30, 40)}
    for name, chosen in rows.items():
        manifest = pd.DataFrame({"id": data.ids[chosen], "index": chosen})
        manifest["label"] = data.labels[chosen]
        manifest["sha256"] = [digest(data, row) for row in chosen]
        artifacts.write_table(workspace.manifest(name), manifest)
    request = {"dataset": "digits", "forget": "class <8>", "forget_classes": [8]}
    request["objective"] = "classification"
    artifacts.write_json(workspace.request, request | {"classes": list(data.classes), "notes": []})
    artifacts.write_json(workspace.runs / "train" / "metrics.json", {"test_accuracy": 98.5})
    scores = np.linspace(-3, 1, FORGET)
    influence = pd.DataFrame({"id": data.ids[eights], "label": 8, "loss": np.exp(-scores)})
    influence = influence.assign(influence=scores, weight=np.abs(scores), selected=scores < 0)
    artifacts.write_table(workspace.influence, influence)
    steps = pd.DataFrame({"step": [0, 5, 9], "forget": [100.0, 40, 0], "retain": 99.5})
    predicted = pd.concat(
        [
            pd.DataFrame({"set": name, "id": data.ids[chosen], "label": data.labels[chosen]})
            for name, chosen in rows.items()
            if name != "train"
        ]
    )
    for model in ("", "reference_", "original_"):
        predicted[f"{model}predicted"] = predicted["label"]
        predicted[f"{model}right"] = 1.0
        predicted[f"{model}confidence"] = 0.75
    for item, values in VALUES.items():
        out = evaluation(workspace, item)
        artifacts.write_json(out / "metrics.json", dict(zip(NAMES, values, strict=False)))
        artifacts.write_table(out / "trajectory.csv", steps.assign(validation=95.0, test=94.0))
        artifacts.write_table(out / "predictions.parquet", predicted)
        artifacts.write_json(out / "failure.json", "")
    return workspace.root


def evaluation(workspace: Workspace, item: str) -> Path:
    return workspace.evaluation(f"{'retrain' if item in RETRAINED else 'unlearn'}/{item}")


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(prepared, tmp_path / "copy"))


@pytest.fixture(scope="module")
def reported(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(shutil.copytree(prepared, tmp_path_factory.mktemp("reported") / "copy"))
    report.run(workspace, None)
    return workspace


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time, and a test of words or of refusals needs none."""
    for name in ("distances", "influences", "samples", "courses"):
        monkeypatch.setattr(figures, name, lambda *_: b"")


class Page(HTMLParser):
    """Tags, attributes, text and the cells of every table row of a page."""

    def __init__(self, workspace: Workspace):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.inside = False  # a table cell
        self.source = (workspace.runs / "report" / "report.html").read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.inside:
            self.rows[-1][-1] += data.strip()

    def row(self, *start: str) -> list[str]:
        (found,) = [row for row in self.rows if row[: len(start)] == list(start)]
        return found


def outputs(workspace: Workspace) -> dict[str, bytes]:
    files = (workspace.runs / "report").rglob("*")
    return {str(f.relative_to(workspace.root)): f.read_bytes() for f in files if f.is_file()}


def change(workspace: Workspace, item: str, **values: float | None) -> None:
    """Set metrics of an evaluation; None removes one."""
    path = evaluation(workspace, item) / "metrics.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_the_bytes_depend_on_the_inputs_alone(reported: Workspace, workspace: Workspace) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        report.run(workspace, None)  # in another folder, later, with a user's own style
    assert outputs(workspace) == outputs(reported)
    assert all(b"matplotlib" not in content for content in outputs(workspace).values())
    assert len(outputs(workspace)) == 3 + len(report_page.FIGURES)


def test_the_record_names_every_output(reported: Workspace) -> None:
    files = [path for paths in record(reported, "report", None).files.values() for path in paths]
    assert {str(path.relative_to(reported.root)) for path in files} == {
        *outputs(reported),
        "params.yaml",
    }


def test_a_method_that_sees_the_retain_set_is_marked_and_stands_apart(workspace: Workspace) -> None:
    path = workspace.root / "params.yaml"
    path.write_text(path.read_text().replace("ours: {", "ours: {data_access: retain, "))
    report.run(workspace, None)
    found = pd.read_csv(workspace.runs / "report" / "table.csv").set_index("model")["kind"]
    assert list(found.index[-2:]) == ["other", "ours"]
    assert list(found[-2:]) == ["method", "with_retain"]
    page = Page(workspace)
    assert "with_retain, the retain" in page.text
    assert page.row("ours", "with_retain", "0.00")


def test_the_page_needs_no_network(reported: Workspace) -> None:
    page = Page(reported)
    assert len(page.addresses) == len(report_page.FIGURES) + 2  # a picture of samples per method
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"link", "script", "iframe", "object"} & set(page.tags)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert str(reported.root) not in page.source


def test_every_number_is_that_of_the_evaluation(reported: Workspace) -> None:
    page = Page(reported)
    found = pd.read_csv(reported.runs / "report" / "table.csv").set_index("model")
    outcomes = report.outcomes(reported)
    terminal = report.text(lineup.table(reported), outcomes)
    assert list(found.columns) == ["kind", *metrics.about("classification"), "RTE_work"]
    assert list(found.index) == ["reference", "retrain_2", "nothing", "logit_mask", "ours", "other"]
    groups = [
        ("FA", "RA", "TFA", "TA", "gap", "gap_acc"),
        ("MIA",),
        ("TV",),
        ("probe_5",),
        ("RTE_work",),
    ]
    for item, kind in found["kind"].items():
        measured = json.loads((evaluation(reported, item) / "metrics.json").read_text())
        assert found.loc[item].drop("kind").dropna().to_dict() == measured
        printed = {n: f"{measured[n]:.{PLACES[n]}f}" if n in measured else "" for n in PLACES}
        rows = [row for row in page.rows if row[:2] == [item, kind]]
        assert rows == [[item, kind, *(printed[n] for n in group)] for group in groups]
        (line,) = [line for line in terminal.splitlines() if line.startswith(f"{item} ")]
        headline = [printed[n] for n in NAMES if n not in ("MIA", "gap_acc") and printed[n]]
        assert line.split() == [item, *outcomes.get(item, "").split(), *headline]
    assert max(map(len, terminal.splitlines())) <= 110


def test_a_value_that_is_absent_is_empty_not_zero(reported: Workspace) -> None:
    lines = (reported.runs / "report" / "table.csv").read_text().splitlines()
    assert next(line for line in lines if line.startswith("nothing,")).endswith(",,,")


def test_the_verdicts_and_what_decided_them_come_first(reported: Workspace) -> None:
    page = Page(reported)
    assert report.outcomes(reported) == {
        "ours": "indistinguishable",
        "other": "utility lost",
        "nothing": "not forgotten",
        "logit_mask": "masked only",
    }
    said = {
        f.model: f for f in findings.findings(lineup.compared(reported, lineup.table(reported)))
    }
    assert said["other"].decided == [
        "RA −8.00, allowed 3.58",
        "TA −8.50, allowed 6.31",
        "also: distinguishable",
    ]
    assert said["logit_mask"].decided == ["probe_5 +37.00, allowed 7.00"]
    assert said["ours"].decided == [
        "all 8 tests passed",
        "not measured: U_LiRA, proto_5, relearn_auc",
    ]
    first = next(row for row in page.rows if row[0] == "other")
    assert first[1] == "utility lost" + "".join(said["other"].decided)
    assert first[3:] == [
        "RA 92.00 | 100.00 ± 0.25TA 91.00 | 99.50 ± 0.75work 3.15 %",
        "gap_acc 4.12 | retraining 1.19TV 0.2500 | retraining 0.0625",
        "probe_5 55.00 | 60.00 ± 2.00",
    ]
    text = " ".join(page.text.split())
    assert "Indistinguishable from retraining on these tests: ours. Utility lost: other." in text
    assert "it is not a guarantee" in text
    assert "no power" not in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("retrained", [True, False])
def test_a_method_that_left_the_weights_as_they_were_is_unchanged(
    workspace: Workspace, retrained: bool
) -> None:
    for item in ("ours", "nothing"):
        change(workspace, item, unchanged=1.0)
    before = lineup.table(workspace)
    assert "unchanged" not in before
    if not retrained:
        path = workspace.root / "params.yaml"
        path.write_text(path.read_text().replace("retrain: true", "retrain: false"))
    results = lineup.table(workspace)
    found = {f.model: f for f in findings.findings(lineup.compared(workspace, results))}
    assert found["ours"].outcome == "unchanged"
    assert found["ours"].words == "unchanged: nothing was unlearned"
    assert found["nothing"].outcome == ("not forgotten" if retrained else "not judged")


def test_the_flow_of_a_method_that_changed_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"unchanged": "unchanged: nothing was unlearned", "masked only": "masked only"}
    artifacts.write_json(
        tmp_path / "runs" / "report" / "verdicts.json",
        {o: {"outcome": o, "words": words, "decided": ["why"]} for o, words in said.items()},
    )
    pages.changed(tmp_path, "masked only")
    with pytest.raises(UnchangedError, match="is unchanged: nothing was unlearned; why"):
        pages.changed(tmp_path, "unchanged")
    assert UnchangedError in EXPLAINED
    asked: dict[str, str] = {}
    monkeypatch.setattr(pipeline, "_asked", lambda _, **given: asked.update(given))
    pipeline.unlearn.fn(Method("imu"))
    assert asked["changed"] == "imu"


@pytest.mark.usefixtures("undrawn")
def test_tests_that_doing_nothing_passes_are_said_to_have_no_power(workspace: Workspace) -> None:
    change(workspace, "nothing", FA=0.0, TFA=0.0)
    report.run(workspace, None)
    said = report.read_verdicts(workspace)
    assert said["nothing"]["outcome"] == "masked only"
    words = "indistinguishable from retraining on these tests, which have no power here"
    assert said["ours"]["words"] == words
    text = Page(workspace).text
    assert text.index("the tests have no power") < text.index(f"I{words[1:]}: ours.")


@pytest.mark.usefixtures("undrawn")
def test_single_tests_that_doing_nothing_passes_are_named(workspace: Workspace) -> None:
    change(workspace, "nothing", probe_5=0.0)  # as where a class has one sample to learn from
    report.run(workspace, None)
    said = report.read_verdicts(workspace)
    assert said["ours"]["decided"][-1] == "without power, as the original passes them: probe_5"
    assert said["ours"]["outcome"] == "indistinguishable"
    assert not any("without power" in line for line in said["other"]["decided"])


@pytest.mark.usefixtures("undrawn")
def test_a_mask_that_passes_takes_the_power_from_the_verdicts(workspace: Workspace) -> None:
    change(workspace, "logit_mask", probe_5=60.0)
    report.run(workspace, None)
    words = "indistinguishable from retraining on these tests, which a mask on the logit passes too"
    assert report.read_verdicts(workspace)["ours"]["words"] == words
    text = Page(workspace).text
    assert text.index("The logit mask passes every test") < text.index(f"I{words[1:]}: ours.")
    assert "no power" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_retrained_model_that_fails_its_own_tests_is_told(workspace: Workspace) -> None:
    retrained_again(workspace, TV=0.07)
    report.run(workspace, None)
    assert report.outcomes(workspace)["retrain_2"] == "indistinguishable"
    assert "Retraining with another seed fails" not in Page(workspace).text
    change(workspace, "retrain_2", RA=95.0)
    report.run(workspace, None)
    assert "Retraining with another seed fails as well (retrain_2)" in Page(workspace).text


def retrained_again(workspace: Workspace, **values: float) -> None:
    parameters = PARAMETERS.replace("retrain: {", "retrain: {retrain_3: {seed_offset: 2000}, ")
    (workspace.root / "params.yaml").write_text(parameters)
    shutil.copytree(evaluation(workspace, "retrain_2"), evaluation(workspace, "retrain_3"))
    change(workspace, "retrain_3", **values)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("gap", "said"), [(0.55, "none"), (0.30, "ours"), (0.375 + 1e-6, "none")])
def test_the_mask_is_the_measure(workspace: Workspace, gap: float, said: str) -> None:
    change(workspace, "ours", gap_acc=gap)
    report.run(workspace, None)
    than = "the logit mask (0.38 points; retraining varies by 1.19)"
    assert f"Smaller mean gap of accuracies than {than}: {said}." in Page(workspace).text


def test_the_figures_get_distances_to_the_reference(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained_again(workspace, RA=99.5, gap=1.5)
    found: dict[str, figures.Distance] = {}

    def distances(given: list[figures.Distance], baselines: list[str]) -> bytes:
        found.update({distance.metric: distance for distance in given})
        return b""

    monkeypatch.setattr(figures, "distances", distances)
    report.run(workspace, None)
    assert list(found) == ["FA", "RA", "TFA", "TA", "gap", "TV", "probe_5"]
    assert list(found["FA"].of_models) == ["nothing", "logit_mask", "ours", "other"]
    assert (found["RA"].of_models["other"], found["RA"].of_variability) == (8.0, 0.5)
    assert (found["gap"].of_models["other"], found["gap"].of_variability) == (25.5625, 1.5)
    assert (found["gap"].unit, found["RA"].unit, found["TV"].unit) == ("points", "points", "")


def test_sample_wise_forgetting_has_no_forgotten_class(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, TFA=None)
    request = artifacts.read_json(workspace.request) | {"forget_classes": []}
    artifacts.write_json(workspace.request, request)
    report.run(workspace, None)
    page = Page(workspace)
    assert pd.read_csv(workspace.runs / "report" / "table.csv")["TFA"].isna().all()
    assert "TFA (%)" not in page.text
    assert "TFA" not in report.text(lineup.table(workspace), {})
    assert "than doing nothing (49.66 points; retraining varies by 1.19): ours, other." in page.text
    assert "masked only (features keep the samples)" in page.text


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_measured_is_named_with_the_reason(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = workspace.read_manifest("forget")
    artifacts.write_table(workspace.manifest("forget"), manifest[:1])
    table = artifacts.read_table(workspace.influence)
    artifacts.write_table(workspace.influence, table[:1])
    request = artifacts.read_json(workspace.request)
    artifacts.write_json(workspace.request, request | {"notes": ["1 <sample> is requested."]})
    for item in VALUES:
        path = evaluation(workspace, item) / "predictions.parquet"
        found = artifacts.read_table(path)
        kept = (found["set"] != "forget") | (found["id"] == manifest["id"][0])
        artifacts.write_table(path, found[kept])
    report.run(workspace, None)
    lines = [
        "proto_1: needs 2 forget samples of each forgotten class, got 1",
        "relearn_auc, relearn_steps, relearn_samples: needs at least 2 forget samples and a "
        "retained one, got 1 and 30",
    ]
    text = Page(workspace).text
    printed = capsys.readouterr().out
    for line in lines:
        assert line in text
        assert f"not measured: {line}" in printed
    assert "1 <sample> is requested." in text
    assert "1 <sample> is requested." in printed
    assert "needs a network with a linear head" not in text
    assert "probe_5:" not in text  # it was measured


@pytest.mark.usefixtures("undrawn")
def test_a_network_without_a_head_has_no_attacks_on_features(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, probe_5=None)
    report.run(workspace, None)
    heads = [n for n, about in metrics.about().items() if about.group == "features"]
    page = Page(workspace)
    assert f"{', '.join(heads)}: needs a network with a linear head" in page.text


def test_without_other_seeds_and_baselines(workspace: Workspace) -> None:
    (workspace.root / "params.yaml").write_text(
        "seed: 0\nsplit: {dataset: digits}\noriginal: {retrain: true}\n"
        "pixels: {mean: [], std: []}\n"
        "retrain: {reference: {seed_offset: 0}}\n"
        "ensemble: {members: 3, families: {}, judged: {}}\n"
        "unlearn: {ours: {method: imu}}\nverdict: " + PARAMETERS.split("verdict: ")[1]
    )
    report.run(workspace, None)
    text = Page(workspace).text
    assert "No retraining variability" in text
    assert "Smaller mean gap" not in text


def test_without_retraining_nothing_is_judged_and_the_page_says_so(workspace: Workspace) -> None:
    (workspace.root / "params.yaml").write_text(
        PARAMETERS.replace("retrain: true", "retrain: false")
    )
    for item in VALUES:
        if item in RETRAINED:
            continue
        change(workspace, item, gap=None, gap_acc=None, TV=None, RTE_work=None, JSD_unseen=0.125)
        path = evaluation(workspace, item) / "predictions.parquet"
        found = artifacts.read_table(path)
        kept = [name for name in found if not name.startswith("reference_")]
        artifacts.write_table(path, found[kept])
        artifacts.write_json(workspace.per_sample(f"unlearn/{item}") / "metrics.json", {})
    report.run(workspace, None)
    page = Page(workspace)
    assert report.outcomes(workspace) == dict.fromkeys(
        ("ours", "other", "nothing", "logit_mask"), "not judged"
    )
    text = " ".join(page.text.split())
    assert "Nothing was retrained (original.retrain in params.yaml): no verdict is given" in text
    assert "No reference was retrained." in text
    assert "A verdict is empirical evidence" not in text
    first = next(row for row in page.rows if row[0] == "other")
    assert first[1:4] == [
        "not judgednothing was retrained",
        "FA 0.00 | 100.00TFA 0.00 | 97.50",
        "RA 92.00 | 99.88TA 91.00 | 98.50",
    ]
    assert "JSD_unseen 0.1250 | 0.1250" in first[4]
    assert page.row("original")[1:] == ["100.0"] * len(page.row("original")[1:])
    table = pd.read_csv(workspace.runs / "report" / "table.csv")
    assert set(table["kind"]) == {"baseline", "method"}


def test_captions_are_no_formulas() -> None:
    images = figures.Images("title", ["US$ → US$", r"x$\\foo$"], np.zeros((2, 1, 4, 4)))
    assert figures.samples([images], 1.0).startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_lies_below_its_caption(channels: int) -> None:
    """Images of one grey each, or of one colour: the middle of each cell shows it."""
    levels = np.array([[0, 4, 12], [16, 8, 2]])  # of 16
    rows = [
        figures.Images("title", ["a"] * 3, np.multiply.outer(row, np.ones((channels, 5, 5))))
        for row in levels
    ]
    for row in rows if channels == 3 else []:
        row.images[:, 2] = 0  # no blue
    drawn = np.asarray(Image.open(BytesIO(figures.samples(rows, 16))).convert("RGB"))
    assert drawn.shape[:2] == (round(2 * figures.ROW * 144), 4 * 144)
    for (place, at), level in np.ndenumerate(levels):
        y = round(144 * (figures.ROW * (place + 1) - figures.CELL / 2))
        shown = drawn[y, round(144 * figures.CELL * (at + 0.5))].astype(int)
        expected = np.full(3, 255 * level / 16)
        expected[2] *= channels == 1
        assert abs(shown - expected).max() <= 1  # grey has 256 levels


def test_text_from_outside_is_escaped(reported: Workspace) -> None:
    page = Page(reported)
    assert "forget class <8>, seed 3" in page.text
    assert "class &lt;8&gt;" in page.source
    assert PARAMETERS.strip() in page.text
    assert "<script" not in page.source


def test_evaluations_of_entries_that_are_gone_are_removed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(evaluation(workspace, "ours"), evaluation(workspace, "gone"))
    lineup.prune(workspace)
    said = "removed runs/evaluate/unlearn/gone: not in params.yaml; DVC's cache still has it\n"
    assert capsys.readouterr().out == said
    assert {folder.name for folder in workspace.evaluation("").glob("*/*")} == set(VALUES)
    lineup.prune(workspace)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "missing",
    [
        "runs/evaluate/unlearn/other/metrics.json",
        "runs/evaluate/retrain/retrain_2/metrics.json",
        "runs/evaluate/unlearn/other/trajectory.csv",
        "runs/evaluate/retrain/retrain_2/predictions.parquet",
        "runs/evaluate/unlearn/ours/failure.json",
        "runs/influence/influence.parquet",
        "runs/split/request.json",
        "runs/split/test.csv",
        "runs/train/metrics.json",
        "data/digits/images.npy",
    ],
)
def test_a_missing_input_is_refused(workspace: Workspace, missing: str) -> None:
    (workspace.root / missing).unlink()
    with pytest.raises(artifacts.ArtifactError, match=missing):
        report.run(workspace, None)
    assert outputs(workspace) == {}


def measure_more(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, speed=1.0)


def relabel(workspace: Workspace) -> None:
    table = artifacts.read_table(workspace.influence)
    artifacts.write_table(workspace.influence, table.assign(id=table["id"] + "x"))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: change(w, "other", MIA=None), "other/metrics.json has the metrics"),
        (lambda w: change(w, "other", speed=1.0), "other/metrics.json has the metrics"),
        (measure_more, "reference/metrics.json has the metrics"),
        (relabel, "lists other samples than the forget set"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    workspace: Workspace, damage: Callable[[Workspace], None], message: str
) -> None:
    damage(workspace)
    with pytest.raises(artifacts.ArtifactError, match=message):
        report.run(workspace, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reference:", "other:", "retrain has no 'reference'"),
        ("unlearn:", "unlearn:\nunused:", "unlearn has no entry"),
        (
            "retrain_2: {seed_offset: 1000}",
            "ours: {seed_offset: 1000}",
            "both in retrain and unlearn",
        ),
    ],
)
def test_parameters_that_cannot_be_reported(
    workspace: Workspace, old: str, new: str, message: str
) -> None:
    (workspace.root / "params.yaml").write_text(PARAMETERS.replace(old, new))
    with pytest.raises(params.ParameterError, match=message):
        report.run(workspace, None)
    assert evaluation(workspace, "retrain_2").exists()  # nothing is removed by mistake
