"""The report says what the metrics say, in the same bytes every time."""

import base64
import json
import re
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
from flows.running.failures import EXPLAINED, UnchangedError
from flows.running.requests import Method
from imu import metrics, verdicts
from imu.datasets import LabelledImages, digits
from tasks import report
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, digest
from tasks.pages import charts, findings, lineup, report_page, scatter, summary
from tasks.pages.kinds import classification
from tasks.pages.plain import PLAIN
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
verdict: {forgetting: 3.0, utility: 2.0, membership: 5.0, features: 5.0, features_share: 0.5,
  distance: 0.02, samples: 10.0}
"""
FORGET = 20
VALUES = {  # FA, RA, TFA, TA, gap, gap_acc, MIA, TV, probe_1, and RTE_work where there was work
    "reference": (0.0, 100.0, 0.0, 99.5, 0.0, 0.0, 98.25, 0.0, 60.0),
    "retrain_2": (1.25, 99.75, 2.5, 98.75, 1.3125, 1.1875, 97.0, 0.0625, 62.0),
    "nothing": (100.0, 99.875, 97.5, 98.5, 58.78125, 49.65625, 1.5, 0.125, 97.0),
    "logit_mask": (0.0, 99.875, 0.0, 98.125, 0.40625, 0.375, 98.25, 0.05, 97.0, 210.5),
    "ours": (0.0, 99.875, 0.0, 98.125, 0.40625, 0.375, 98.25, 0.045, 66.5, 180.25),
    "other": (0.0, 92.0, 0.0, 91.0, 25.5625, 4.125, 12.5, 0.25, 55.0, 31.75),
}
NAMES = ("FA", "RA", "TFA", "TA", "gap", "gap_acc", "MIA", "TV", "probe_1", "RTE_work")
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
        unlike = 0.25 if item == "ours" else 0.75
        artifacts.write_table(out / "predictions.parquet", predicted.assign(confidence=unlike))
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
    artifacts.write_json(workspace.runs / "report" / "models" / "gone.json", {})
    report.run(workspace, None)  # in another folder, later, over what another run left
    assert outputs(workspace) == outputs(reported)
    files = ("report.html", "table.csv", "verdicts.json", "courses.csv", "distances.csv")
    models = {f"runs/report/models/{item}.json" for item in VALUES}
    assert outputs(workspace).keys() == models | {f"runs/report/{name}" for name in files}


def test_the_record_names_every_output(reported: Workspace) -> None:
    files = [path for paths in record(reported, "report", None).files.values() for path in paths]
    excerpts = {name for name in outputs(reported) if "/models/" in name}
    assert {str(path.relative_to(reported.root)) for path in files} == {
        *outputs(reported).keys() - excerpts,
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
    of_method = 3 * report_page.SHOWN
    assert len(page.addresses) == of_method + 2 * report_page.SHOWN  # and by influence
    assert "No sample differs by more than 0.0005." in page.text  # of the other method
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"link", "script", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|https?:|//[a-z]", page.source)
    assert "@import" not in page.source
    assert str(reported.root) not in page.source


def test_every_number_is_that_of_the_evaluation(reported: Workspace) -> None:
    page = Page(reported)
    found = pd.read_csv(reported.runs / "report" / "table.csv").set_index("model")
    outcomes = report.outcomes(reported)
    compared = lineup.compared(reported, lineup.table(reported))
    terminal = report.text(compared, outcomes)
    assert list(found.columns) == ["kind", *metrics.about("classification"), "RTE_work"]
    assert list(found.index) == ["reference", "retrain_2", "nothing", "logit_mask", "ours", "other"]
    groups = [
        ("FA", "RA", "TFA", "TA", "gap", "gap_acc"),
        ("MIA",),
        ("TV",),
        ("probe_1",),
        ("RTE_work",),
    ]
    for item, kind in found["kind"].items():
        measured = json.loads((evaluation(reported, item) / "metrics.json").read_text())
        assert found.loc[item].drop("kind").dropna().to_dict() == measured
        printed = {n: f"{measured[n]:.{PLACES[n]}f}" if n in measured else "" for n in PLACES}
        rows = [row for row in page.rows if row[:2] == [item, kind]]
        assert rows == [[item, kind, *(printed[n] for n in group)] for group in groups]
        (line,) = [line for line in terminal.splitlines() if line.startswith(f"{item} ")]
        shown = summary.lines(compared, {item: outcomes.get(item, "")})[0][2:]
        assert line.split() == [item, *outcomes.get(item, "").split(), *filter(None, shown)]
        assert {*filter(None, (printed[n] for n in ("FA", "RA", "TV", "probe_1")))} <= {*shown}
    assert max(map(len, terminal.splitlines())) <= 110
    assert terminal.splitlines()[3].startswith("ours ")


def test_a_value_that_is_absent_is_empty_not_zero(reported: Workspace) -> None:
    lines = (reported.runs / "report" / "table.csv").read_text().splitlines()
    assert next(line for line in lines if line.startswith("nothing,")).endswith(",,,")


def test_the_verdicts_and_what_decided_them_are_told(reported: Workspace) -> None:
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
    assert said["logit_mask"].decided == ["probe_1 +37.00, allowed 7.00"]
    assert said["ours"].decided == [
        "all 8 tests passed",
        "not measured: U_LiRA, proto_1, relearn_auc",
    ]
    assert page.row("other", "utility lost", "".join(said["other"].decided))
    assert page.row("other", "utility lostRA −8.00, allowed 3.58")[2:] == [
        *("0.00", "0.00", "92.00", "91.00", "3.15", "0.2500", "55.00")
    ]
    text = " ".join(page.text.split())
    assert "Indistinguishable from retraining on these tests: ours. Utility lost: other." in text
    assert "it is not a guarantee" in text
    assert "no power" not in text


def test_models_are_ordered_by_verdict_then_by_cost(workspace: Workspace) -> None:
    parameters = (workspace.root / "params.yaml").read_text()
    more = "  costly: {method: imu}\n  cheap: {method: imu}\n  other:"
    (workspace.root / "params.yaml").write_text(parameters.replace("  other:", more))
    for item, saved in (("costly", 2.0), ("cheap", 500.0)):
        shutil.copytree(evaluation(workspace, "ours"), evaluation(workspace, item))
        change(workspace, item, RTE_work=saved)
    report.run(workspace, None)
    methods = ["cheap", "ours", "costly", "other"]
    baselines = ["nothingbaseline", "logit_maskbaseline"]
    rows = [row[0] for row in Page(workspace).rows[2:8]]
    assert rows == [*methods, *baselines]
    assert list(report.read_verdicts(workspace))[:4] == methods
    shown = artifacts.read_json(workspace.runs / "report" / "models" / "costly.json")
    assert shown == {
        "verdict": "indistinguishable",
        "FA": 0.0,
        "TFA": 0.0,
        "RA": 99.88,
        "TA": 98.12,
        "work": 50.0,
        "TV": 0.045,
        "probe_1": 66.5,
    }


def answered(workspace: Workspace) -> dict[str, list[summary.Answer]]:
    compared = lineup.compared(workspace, lineup.table(workspace))
    found = findings.findings(compared)
    return {
        hero.role: [
            a._replace(evidence=a.evidence.replace(summary.NARROW, " ")) for a in hero.answers
        ]
        for hero in summary.heroes(compared, found, "other")
    }


def test_four_questions_are_answered_for_the_best_and_the_default(workspace: Workspace) -> None:
    best, default = answered(workspace).values()
    assert [answer.mark for answer in best] == ["good"] * 4
    assert best[0].word == "Yes."
    assert best[0].evidence == (
        "Accuracy on the forget set 0.0 % (retrained 0.0 %), accuracy on unseen samples of the "
        "class 0.0 % (retrained 0.0 %)."
    )
    assert best[1].evidence.endswith("0.6 % of the work of retraining.")
    assert best[2].evidence.endswith(f"0.045 (other seeds 0.062), not measured: {PLAIN['U_LiRA']}.")
    assert [answer.mark for answer in default] == ["good", "bad", "bad", "good"]
    assert default[1].word == "Too much."
    assert default[1].evidence.startswith("Accuracy on the samples that stay 92.0 % (retrained 100")
    change(workspace, "nothing", FA=0.0, TFA=0.0, probe_1=60.0)
    best, _ = answered(workspace).values()
    assert [answer.mark for answer in best] == ["open", "good", "good", "open"]
    assert best[0].word == "Not shown: doing nothing passes these tests too."


def test_less_than_retraining_gives_a_model_away(workspace: Workspace) -> None:
    for model in ("ours", "other"):
        change(workspace, model, probe_1=20.0)
    answers = next(iter(answered(workspace).values()))
    assert answers[2].evidence == (
        "Accuracy of a new classifier of its features 20.0 % (retrained 60.0 %), "
        "less than retraining leaves."
    )


@pytest.mark.parametrize(
    ("entry", "method", "roles"),
    [
        ("ours", "imu", [f"best verdict, and {summary.OURS}"]),
        ("other", "gradient_ascent", ["best verdict, the cheapest of equals", summary.OURS]),
    ],
)
def test_the_page_begins_with_the_best_method_and_the_default(
    workspace: Workspace, entry: str, method: str, roles: list[str]
) -> None:
    path = workspace.root / "params.yaml"
    deep = path.read_text().replace(f"{entry}: {{method: {method}", f"{entry}: {{method: imu_deep")
    path.write_text(deep)
    report.run(workspace, None)
    page = Page(workspace)
    text = " ".join(page.text.split())
    places = [text.index(role) for role in roles]
    assert places == sorted(places)
    assert places[-1] < text.index("Did it forget?") < text.index("Every model")
    assert places[-1] < text.index("evidence, not a guarantee") < text.index("Did it forget?")
    assert len(re.findall('class="hero"', page.source)) == len(roles)


def test_every_column_is_explained_where_it_stands(reported: Workspace) -> None:
    source = Page(reported).source
    heads = re.findall(r'<th scope="col" class="number">(.*?)</th>', source)
    explained = [head for head in heads if head.startswith('<abbr title="')]
    assert len(explained) == 8 - 1 + len(NAMES)  # the line of every model, and all numbers
    assert all(
        re.match(r'<abbr title="[^"]{10,}">[^<]+</abbr><small>.+</small>', h) for h in explained
    )
    asked = {name for names in findings.QUESTIONS.values() for name in names}
    named = {test.metric for test in verdicts.CRITERIA} | asked - {findings.WORK}
    assert named <= PLAIN.keys()


def test_everything_that_is_drawn_lies_in_its_figure(reported: Workspace) -> None:
    source = Page(reported).source
    places = [float(x) for x in re.findall(r' (?:c?x[12]?|c?y[12]?)="([-\d.]+)%"', source)]
    assert len(places) > 300
    assert min(places) >= 0
    assert max(places) <= 100
    sides = re.findall(r' (x|y)="([-\d.]+)%" (?:width|height)="([-\d.]+)%"', source)
    assert all(float(start) + float(size) <= 100.01 for _, start, size in sides)


@pytest.mark.parametrize(
    ("scores", "texts"),
    [([-5, -1, -0.2], ["−5", "−0.2"]), ([0, 0], ["0"]), ([-1, 2], ["−1", "0", "1"])],
)
def test_the_ticks_of_influence_lie_among_the_scores(scores: list[float], texts: list[str]) -> None:
    drawn = charts.influences(pd.DataFrame({"influence": scores, "selected": True}).astype("f8"))
    assert [tick.text for tick in drawn.ticks] == texts
    assert all(0 <= tick.at <= 100 for tick in drawn.ticks)


def test_a_dot_beyond_the_limit_failed_its_test() -> None:
    assert charts.tested_at(0.0) == charts.LEFT
    assert charts.tested_at(1.0) == charts.LIMIT
    places = [charts.tested_at(times) for times in (0, 0.5, 1, 1.01, 1.5, 2, 2.01, 10, 100)]
    assert places == sorted(set(places))
    assert charts.tested_at(1e9) == charts.tested_at(float("inf")) == charts.RIGHT


def test_a_metric_that_is_full_everywhere_has_an_axis(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, probe_1=100.0)
    compared = lineup.compared(workspace, lineup.table(workspace))
    (column,) = [c for c in summary.columns(compared) if c.name == "probe_1"]
    panel = charts.values(compared, column, list(VALUES), dict.fromkeys(VALUES, "other"))
    assert [tick.text for tick in panel.ticks] == ["90", "95", "100"]
    assert {dot.at for line in panel.lines for dot in line.dots} == {charts.RIGHT}


def test_forgetting_is_drawn_against_utility_with_retraining_as_a_cloud(
    workspace: Workspace,
) -> None:
    compared = lineup.compared(workspace, lineup.table(workspace))
    drawn = scatter.scatter(compared, dict.fromkeys(VALUES, "other"))
    assert drawn is not None
    assert drawn.across.startswith("TA, %")
    assert drawn.up.startswith("probe_1, %")
    at = {point.title.partition(":")[0]: point for point in drawn.points}
    assert at.keys() == VALUES.keys()
    assert at["ours"].title == "ours: TA 98.12, probe_1 66.50"
    cloud = drawn.cloud
    within = {
        model
        for model, point in at.items()
        if 0 <= point.x - cloud.x <= cloud.width and 0 <= point.y - cloud.y <= cloud.height
    }
    assert within == {"reference", "retrain_2"}
    assert at["other"].x < at["ours"].x < at["reference"].x
    assert at["nothing"].y < at["ours"].y < at["reference"].y
    said = [label.text for label in drawn.labels]
    assert sorted(said) == ["logit_mask and 1 more", "other", "ours"]


def test_large_images_are_shown_small() -> None:
    images = np.zeros((1, 3, 200, 100), dtype=np.uint8)
    data = LabelledImages(
        images=images,
        labels=np.zeros(1, dtype=np.int64),
        ids=np.array(["a"]),
        classes=("a",),
        scale=255,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    rows = pd.DataFrame({"row": [0], "label": [0], "influence": [1.0], "loss": [1.0]})
    (part,) = classification.influential(data, {"title": rows})
    shown = Image.open(BytesIO(base64.b64decode(part.cards[0].png)))
    assert shown.size == (32, 64)


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
    pipeline.unlearn.fn(method=Method("imu"))
    assert asked["changed"] == "imu"


def test_tests_that_doing_nothing_passes_are_said_to_have_no_power(workspace: Workspace) -> None:
    change(workspace, "nothing", FA=0.0, TFA=0.0)
    report.run(workspace, None)
    said = report.read_verdicts(workspace)
    assert said["nothing"]["outcome"] == "masked only"
    words = "no evidence: what forgot nothing passes these tests too"
    assert (said["ours"]["outcome"], said["ours"]["words"]) == ("no evidence", words)
    text = Page(workspace).text
    assert text.index("the tests have no power") < text.index(f"N{words[1:]}: ours.")


def test_single_tests_that_doing_nothing_passes_are_named(workspace: Workspace) -> None:
    change(workspace, "nothing", probe_1=0.0)  # as where a class has one sample to learn from
    report.run(workspace, None)
    said = report.read_verdicts(workspace)
    assert said["ours"]["decided"][-1] == "without power, as the original passes them: probe_1"
    assert said["ours"]["outcome"] == "indistinguishable"
    assert not any("without power" in line for line in said["other"]["decided"])


def test_a_mask_that_passes_takes_the_power_from_the_verdicts(workspace: Workspace) -> None:
    change(workspace, "logit_mask", probe_1=60.0)
    report.run(workspace, None)
    said = report.read_verdicts(workspace)
    assert said["ours"]["outcome"] == said["logit_mask"]["outcome"] == "no evidence"
    text = Page(workspace).text
    assert text.index("A mask passes every test") < text.index(
        f"N{said['ours']['words'][1:]}: ours."
    )
    assert "no power" not in text


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


@pytest.mark.parametrize(
    ("gap", "said"), [(1.55, "no method"), (1.30, "ours"), (1.375 + 1e-6, "no method")]
)
def test_the_mask_is_the_measure(workspace: Workspace, gap: float, said: str) -> None:
    change(workspace, "ours", gap_acc=gap)
    change(workspace, "logit_mask", gap_acc=1.375)
    report.run(workspace, None)
    off = "off by 1.38 points (retrained with other seeds 1.19)"
    than = f"in accuracies (gap_acc) than the logit mask, which is {off}"
    assert f"Nearer to the reference {than}: {said}." in Page(workspace).text


def test_a_mask_as_near_as_chance_is_no_measure(workspace: Workspace) -> None:
    report.run(workspace, None)
    assert "Nearer to the reference in" not in Page(workspace).text


def test_dvc_draws_distances_to_the_reference_and_courses(workspace: Workspace) -> None:
    retrained_again(workspace, RA=99.5, gap=1.5)
    report.run(workspace, None)
    found = pd.read_csv(workspace.runs / "report" / "distances.csv").set_index(["metric", "model"])
    names = found.index.get_level_values("metric").unique()
    assert list(names) == ["FA", "RA", "TFA", "TA", "gap", "TV", "probe_1"]
    assert list(found.loc["FA"].index) == ["nothing", "logit_mask", "ours", "other"]
    assert found.loc[("RA", "other")].tolist() == [8.0, 0.5]
    assert found.loc[("gap", "other")].tolist() == [25.5625, 1.5]
    courses = pd.read_csv(workspace.runs / "report" / "courses.csv").set_index("model")
    assert courses.loc["other", "forget"].tolist() == [100, 40, 0]
    assert set(courses.index) == {"ours", "other"}


def test_sample_wise_forgetting_has_no_forgotten_class(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, TFA=None)
    request = artifacts.read_json(workspace.request) | {"forget_classes": []}
    artifacts.write_json(workspace.request, request)
    report.run(workspace, None)
    page = Page(workspace)
    assert pd.read_csv(workspace.runs / "report" / "table.csv")["TFA"].isna().all()
    assert "TFA (%)" not in page.text
    assert "TFA" not in report.shown(workspace)
    off = "off by 49.66 points (retrained with other seeds 1.19)"
    assert f"than doing nothing, which is {off}: ours, other." in page.text
    assert "masked only (features keep the samples)" in page.text


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
    assert "probe_1:" not in text  # it was measured


def test_a_network_without_a_head_has_no_attacks_on_features(workspace: Workspace) -> None:
    for item in VALUES:
        change(workspace, item, probe_1=None)
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
    assert "Nearer to the reference in" not in text


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
    assert page.row("other", "not judgednothing was retrained")[2:] == [
        *("0.00", "0.00", "92.00", "91.00", "0.1250", "55.00")
    ]
    assert "Accuracy on the forget set 0.0 % (original 100.0 %)" in text
    assert page.row("original")[1:] == ["100.0"] * len(page.row("original")[1:])
    table = pd.read_csv(workspace.runs / "report" / "table.csv")
    assert set(table["kind"]) == {"baseline", "method"}


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
