"""Which outcome a set of measurements gets, and which numbers decide it."""

import pytest

from imu import metrics, verdicts
from imu.verdicts import CRITERIA, OUTCOMES, Config, judge

LIMITS = Config(
    forgetting=2.0, utility=1.0, membership=5.0, features=4.0, distance=0.02, samples=10.0
)
REFERENCE = {
    "FA": 10.0,
    "TFA": 10.0,
    "RA": 90.0,
    "TA": 90.0,
    "probe_1": 50.0,
    "proto_1": 50.0,
    "relearn_auc": 50.0,
    "TV": 0.0,
    "TV_forget": 0.0,
    "U_LiRA": 0.0,
} | dict.fromkeys(verdicts.MEMBERSHIP, 50.0)
RETRAINED = [  # within 1 point of the reference on both sides, and 0.05 of TV
    {n: v + (0.05 if n.startswith("TV") else 1.0) for n, v in REFERENCE.items()},
    {n: v + (0.01 if n.startswith("TV") else -0.5) for n, v in REFERENCE.items()},
]

SIZES = dict.fromkeys(("forget", "half", "retain", "forgotten", "kept"), 1000)


def judged(
    *, class_wise: bool = True, retrained=RETRAINED, sizes=SIZES, **changes: float
) -> verdicts.Verdict:
    return judge(
        REFERENCE | changes, REFERENCE, retrained, LIMITS, sizes=sizes, class_wise=class_wise
    )


def test_the_reference_and_retrained_models_are_indistinguishable():
    for class_wise in (True, False):
        own = judged(class_wise=class_wise)
        assert (own.outcome, own.failed) == ("indistinguishable", [])
        for model in RETRAINED:
            assert judged(class_wise=class_wise, **model).outcome == "indistinguishable"


@pytest.mark.parametrize(
    ("metric", "limit", "sign", "outcome", "scenarios"),
    [  # retraining variability + margin, on the side where a model fails
        ("FA", 3.0, 1, "not forgotten", (True, False)),
        ("TFA", 3.0, 1, "not forgotten", (True,)),
        ("MIA", 6.0, -1, "not forgotten", (False,)),
        ("MIA_modified", 6.0, -1, "not forgotten", (False,)),
        ("RA", 2.0, -1, "utility lost", (True, False)),
        ("TA", 2.0, -1, "utility lost", (True, False)),
        ("probe_1", 5.0, 1, "masked only", (True, False)),
        ("proto_1", 5.0, 1, "masked only", (True,)),
        ("relearn_auc", 5.0, 1, "masked only", (True, False)),
        ("FA", 3.0, -1, "distinguishable", (True, False)),
        ("probe_1", 5.0, -1, "distinguishable", (True, False)),
        ("proto_1", 5.0, -1, "distinguishable", (True,)),
        ("relearn_auc", 5.0, -1, "distinguishable", (True, False)),
        ("MIA", 6.0, 1, "distinguishable", (False,)),
        ("TV", 0.07, 1, "distinguishable", (True, False)),
        ("TV_forget", 0.07, 1, "distinguishable", (False,)),
        ("U_LiRA", 11.0, 1, "distinguishable", (True, False)),
    ],
)
def test_a_test_fails_beyond_retraining_variability_and_margin(
    metric, limit, sign, outcome, scenarios
):
    for class_wise in (True, False):
        inside, outside = (
            judged(class_wise=class_wise, **{metric: REFERENCE[metric] + sign * limit * factor})
            for factor in (0.999, 1.001)
        )
        assert inside.outcome == "indistinguishable"
        if class_wise in scenarios:
            assert outside.outcome == outcome
            (result,) = outside.decisive
            assert result.test.metric == metric
            assert result.excess == pytest.approx(1.001 * limit)
            assert result.allowed == pytest.approx(limit)
        else:
            assert outside.outcome == "indistinguishable"


def test_the_other_side_of_a_one_sided_test_is_no_fault():
    better = {"RA": 100.0, "TA": 100.0, "TFA": 0.0}
    assert judged(**better).outcome == "indistinguishable"


def test_the_gravest_outcome_is_the_verdict_and_the_others_are_kept():
    faults = {"RA": 10.0, "FA": 99.0, "probe_1": 99.0, "TV": 0.9}
    found = []
    for name in list(faults):
        found.append(judged(**faults))
        faults[name] = REFERENCE[name]
    assert [f.outcome for f in found] == list(OUTCOMES[:4])
    assert [r.test.metric for r in found[0].failed] == ["RA", "FA", "probe_1", "TV"]
    assert [r.test.metric for r in found[0].decisive] == ["RA"]


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ({"FA": 93.6, "RA": 94.0, "MIA_entropy": 2.0}, "utility lost"),  # unlearned too far
        (dict.fromkeys(("FA", "RA", "TA"), 10.0) | {"MIA": 0.0}, "utility lost"),  # one class
        ({"MIA_entropy": 2.0}, "not forgotten"),
    ],
)
def test_what_a_collapsed_model_says_of_the_forget_set_is_no_sign_of_memory(model, outcome):
    reference = REFERENCE | {"FA": 99.1, "RA": 100.0, "TA": 98.8, "MIA": 9.0, "MIA_entropy": 9.0}
    found = judge(reference | model, reference, [reference], LIMITS, sizes=SIZES, class_wise=False)
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("metric", "counted", "sign"),
    [
        ("FA", "forget", 1),
        ("FA", "forget", -1),
        ("TFA", "forgotten", 1),
        ("RA", "retain", -1),
        ("TA", "kept", -1),
        ("probe_1", "forget", 1),
        ("proto_1", "forget", 1),
        ("relearn_auc", "half", 1),
    ],
)
def test_one_sample_is_never_beyond_the_margin_and_two_of_them_are(metric, counted, sign):
    sizes = SIZES | {counted: 6}
    for samples, failed in ((1, []), (2, [metric])):
        moved = {metric: REFERENCE[metric] + sign * samples * 100 / 6}
        found = judged(retrained=[], sizes=sizes, **moved)
        assert [result.test.metric for result in found.failed] == failed


def test_attacks_on_single_samples_count_the_forget_set():
    for name in verdicts.MEMBERSHIP:
        for moved in (-20.0, 20.0):
            value = {name: REFERENCE[name] + moved}
            assert judged(
                retrained=[], sizes=SIZES | {"forget": 5}, class_wise=False, **value
            ).outcome == ("indistinguishable")
            assert judged(retrained=[], class_wise=False, **value).outcome != "indistinguishable"


def test_the_sizes_are_those_of_what_the_metrics_count():
    labels = {"forget": [1] * 5, "retain": [0, 2, 2], "test": [0, 1, 1, 2, 0, 1, 2]}
    assert verdicts.sizes(labels, (1,)) == {
        "forget": 5,
        "half": 3,
        "retain": 3,
        "forgotten": 3,
        "kept": 4,
    }
    assert verdicts.sizes(labels, ())["kept"] == 7


def test_of_few_texts_one_is_no_difference():
    values = {"P_forget": 10.0, "ROUGE_forget": 0.0, "KS": 0.0, "P_retain": 99.0}
    sizes = {"forget": 4, "half": 2, "retain": 100, "forgotten": 0, "kept": 100}
    near = values | {"ROUGE_forget": 25.0, "KS": 0.25}  # one answer of four
    given = {"sizes": sizes, "class_wise": False}
    assert judge(near, values, [], LIMITS, **given).outcome == "indistinguishable"
    for beyond in ({"ROUGE_forget": 26.0}, {"KS": 0.26}):
        assert judge(near | beyond, values, [], LIMITS, **given).outcome != "indistinguishable"


def test_without_retrained_models_the_margin_alone_counts():
    assert judged(retrained=[], FA=12.5).outcome == "not forgotten"
    assert judged(retrained=[], FA=11.5).outcome == "indistinguishable"


@pytest.mark.parametrize("lacking", ["model", "reference", "retrained"])
def test_a_missing_value_is_an_error(lacking):
    less = {name: value for name, value in REFERENCE.items() if name != "probe_1"}
    given = {"model": REFERENCE, "reference": REFERENCE, "retrained": REFERENCE} | {lacking: less}
    with pytest.raises(KeyError, match="probe_1 was not measured on every model"):
        judge(
            given["model"],
            given["reference"],
            [given["retrained"]],
            LIMITS,
            sizes=SIZES,
            class_wise=True,
        )


def test_a_negative_distance_of_retrained_models_does_not_widen_the_margin():
    retrained = [model | {"U_LiRA": -20.0} for model in RETRAINED]
    assert judged(retrained=retrained, U_LiRA=9.9).outcome == "indistinguishable"
    assert judged(retrained=retrained, U_LiRA=10.1).outcome == "distinguishable"


def test_a_distance_needs_no_value_of_the_reference():
    less = {name: value for name, value in REFERENCE.items() if name != "U_LiRA"}
    found = judge(
        REFERENCE | {"U_LiRA": 50.0}, less, RETRAINED, LIMITS, sizes=SIZES, class_wise=True
    )
    (result,) = found.decisive
    assert (result.test.metric, result.reference) == ("U_LiRA", 0.0)


def test_a_metric_that_nobody_has_is_left_out():
    less = {name: value for name, value in REFERENCE.items() if not name.startswith("proto")}
    found = judge(less, less, [], LIMITS, sizes=SIZES, class_wise=True)
    assert "proto_1" not in {result.test.metric for result in found.results}
    assert len(found.results) == 11


def test_every_criterion_names_a_metric_a_margin_and_an_outcome():
    for criterion in CRITERIA:
        assert criterion.metric in metrics.about()
        assert criterion.margin in Config.__dataclass_fields__
        assert criterion.outcome in OUTCOMES
        assert (metrics.about()[criterion.metric].aim == "low") == (criterion.side == "apart")


@pytest.mark.parametrize("name", list(Config.__dataclass_fields__))
def test_a_negative_margin_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got -0.1"):
        Config(**{name: -0.1})


FORGOT_NOTHING = {"FA": 99.0, "TFA": 99.0, "probe_1": 99.0, "MIA": 10.0}
MASK = {"FA": 0.0, "TFA": 0.0, "probe_1": 99.0}


@pytest.mark.parametrize("class_wise", [True, False])
@pytest.mark.parametrize(
    ("original", "mask", "power"),
    [
        (None, None, True),  # not asked
        (FORGOT_NOTHING, None, True),
        (FORGOT_NOTHING, MASK, True),
        ({"probe_1": 99.0}, None, False),  # that features keep samples does not show that they left
        ({}, None, False),
        (FORGOT_NOTHING, {}, False),  # hidden from every test
        ({}, MASK, False),
    ],
)
def test_passing_is_no_evidence_where_what_forgot_nothing_passes(class_wise, original, mask, power):
    yardsticks = {
        name: None if changes is None else REFERENCE | changes
        for name, changes in (("original", original), ("mask", mask))
    }
    given = {"sizes": SIZES, "class_wise": class_wise} | yardsticks
    found = judge(REFERENCE, REFERENCE, RETRAINED, LIMITS, **given)
    assert found.outcome == ("indistinguishable" if power else "no evidence")
    assert found.failed == []
    failing = judge(REFERENCE | {"TV": 0.9}, REFERENCE, RETRAINED, LIMITS, **given)
    assert failing.outcome == "distinguishable"


def test_power_is_that_of_the_tests_that_the_model_took():
    """A mask that many networks give away passes those of a model that these do not judge."""
    mask = REFERENCE | {"U_LiRA": 100.0}
    fewer = {name: value for name, value in REFERENCE.items() if name != "U_LiRA"}
    retrained = [{n: v for n, v in m.items() if n != "U_LiRA"} for m in RETRAINED]
    given = {"sizes": SIZES, "class_wise": True, "mask": mask}
    assert judge(fewer, fewer, retrained, LIMITS, **given).outcome == "no evidence"
    assert judge(REFERENCE, REFERENCE, RETRAINED, LIMITS, **given).outcome == "indistinguishable"


@pytest.mark.parametrize(("class_wise", "power"), [(True, False), (False, True)])
def test_without_a_mask_the_original_s_features_have_to_tell(class_wise, power):
    """As of a network that was not trained: its answers differ by chance, a mask would pass."""
    original = REFERENCE | {"FA": 99.0, "TFA": 99.0, "MIA": 10.0}
    given = {"sizes": SIZES, "class_wise": class_wise, "original": original}
    found = judge(REFERENCE, REFERENCE, RETRAINED, LIMITS, **given)
    assert found.outcome == ("indistinguishable" if power else "no evidence")


def test_a_yardstick_may_lack_what_was_measured_of_the_model():
    original = {"FA": 99.0}
    given = {"sizes": SIZES, "class_wise": True, "original": original}
    assert judge(REFERENCE, REFERENCE, RETRAINED, LIMITS, **given).outcome == "indistinguishable"


PEOPLE = {
    "mAP_forget": 45.0,
    "R1_forget": 50.0,
    "mAP_retain": 78.0,
    "mAP_new": 60.0,
} | dict.fromkeys(("FA", "TFA", "dAP_forget", "dAP_retain"), 0.0)
AGAIN = PEOPLE | {"mAP_forget": 42.0, "mAP_retain": 76.0, "dAP_forget": 0.2, "dAP_retain": 0.2}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "indistinguishable"),
        ({"mAP_forget": 52.9}, "indistinguishable"),  # 3 points of variability, 5 of margin
        ({"mAP_forget": 53.1}, "not forgotten"),
        ({"R1_forget": 55.1}, "not forgotten"),
        ({"mAP_forget": 90.0, "R1_forget": 90.0}, "not forgotten"),  # FA is 0: a mask
        ({"mAP_forget": 36.9}, "distinguishable"),
        ({"mAP_retain": 70.9}, "utility lost"),
        ({"mAP_new": 54.9}, "utility lost"),
        ({"dAP_forget": 0.25}, "distinguishable"),
        ({"dAP_retain": 0.25}, "distinguishable"),
    ],
)
def test_people_are_forgotten_where_they_are_found_no_better_than_by_retraining(changes, outcome):
    found = judge(PEOPLE | changes, PEOPLE, [AGAIN], Config(), sizes=SIZES, class_wise=True)
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("original", "margin"),
    [
        (50.0 + 12.0, 3.0),  # a quarter of 12 points beyond variability of 1
        (50.0 - 12.0, 3.0),
        (50.0 + 40.0, 4.0),  # never more than is configured
        (50.0 + 1.2, 4.0),  # within variability and a quarter: no margin makes the test see it
    ],
)
@pytest.mark.parametrize("metric", ["probe_1", "proto_1", "relearn_auc"])
def test_margins_of_features_shrink_with_what_there_is_to_notice(metric, original, margin):
    given = {"sizes": SIZES, "class_wise": True, "original": FORGOT_NOTHING | {metric: original}}
    for sign in (1, -1):
        for factor, failed in ((0.999, []), (1.001, [metric])):
            model = REFERENCE | {metric: 50.0 + sign * factor * (1.0 + margin)}
            found = judge(model, REFERENCE, RETRAINED, LIMITS, **given)
            assert [result.test.metric for result in found.failed] == failed


def test_other_margins_stay_and_none_is_below_one_sample():
    few = SIZES | {"forget": 20}  # a sample is 5 points
    given = {"sizes": few, "class_wise": True, "original": FORGOT_NOTHING | {"probe_1": 58.0}}
    for changes, failed in (
        ({"probe_1": 55.9}, []),
        ({"probe_1": 56.1}, ["probe_1"]),
        ({"TFA": 12.9}, []),
    ):
        found = judge(REFERENCE | changes, REFERENCE, RETRAINED, LIMITS, **given)
        assert [result.test.metric for result in found.failed] == failed
