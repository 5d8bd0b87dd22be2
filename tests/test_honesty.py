"""The whole of the evaluation on networks trained here: who must get which verdict."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from imu import ensemble, metrics, training, verdicts
from imu.datasets import digits
from imu.methods import ForgetSet, logit_mask
from imu.models import resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tests.test_attacks import subject_of

FORGOTTEN, RETRAINED = 8, 4  # the reference and three others
RECIPE = training.Config(epochs=6, batch_size=64)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, metrics.Measured]:
    """What is measured of an original, its mask and retrained models, of digits without eights."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder)
    data = digits.load(folder)
    order = np.random.default_rng(0).permutation(len(data.labels))
    train, validation, test = np.split(order, [1077, 1347])
    forgotten = data.labels[train] == FORGOTTEN
    rows = {
        "forget": train[forgotten],
        "retain": train[~forgotten],
        "validation": validation,
        "test": test,
    }
    samples = {
        name: Samples(
            torch.from_numpy(data.images[chosen]).float() / data.scale,
            torch.from_numpy(data.labels[chosen]),
        )
        for name, chosen in rows.items()
    }
    objective = Classification(mean=data.mean, std=data.std)

    def trained(seeds: range, chosen: np.ndarray) -> list[torch.nn.Module]:
        networks = []
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(resnet_small.build(resnet_small.Config(width=8), (1, 8, 8), 10))
        for _ in ensemble.fit(
            networks, data, chosen.tolist(), RECIPE, seeds=seeds, device=torch.device("cpu")
        ):
            pass
        return networks

    (original,) = trained(range(1), train)
    mask = deepcopy(original)
    forget = ForgetSet(samples=samples["forget"], classes=(FORGOTTEN,), target_accuracy=0.0)
    list(logit_mask.unlearn(mask, objective, logit_mask.Config(), torch.Generator(), forget=forget))
    models = {"original": original, "mask": mask}
    retrained = trained(range(1, 1 + RETRAINED), rows["retain"])
    models |= {f"retrained {k}": network for k, network in enumerate(retrained)}
    return {
        name: metrics.measure(subject_of(model, samples, objective, (FORGOTTEN,)))
        for name, model in models.items()
    }


def judged(
    measured: dict[str, metrics.Measured], name: str, reference: int = 0
) -> verdicts.Verdict:
    """By the shipped margins, with all other retrained models as the others."""
    of = measured[f"retrained {reference}"]
    labels = {set_: found.tolist() for set_, found in of.outputs.labels.items()}
    others = {f"retrained {k}" for k in range(RETRAINED)} - {name, f"retrained {reference}"}
    return verdicts.judge(
        metrics.compare(measured[name], of),
        metrics.compare(of, of),
        [metrics.compare(measured[other], of) for other in sorted(others)],
        verdicts.Config(),
        sizes=verdicts.sizes(labels, (FORGOTTEN,)),
        class_wise=True,
    )


@pytest.mark.parametrize("reference", range(RETRAINED))
def test_the_original_is_not_forgotten_and_its_mask_is_only_a_mask(measured, reference):
    assert judged(measured, "original", reference).outcome == "not forgotten"
    found = judged(measured, "mask", reference)
    assert found.outcome == "masked only"
    assert "probe_1" in {result.test.metric for result in found.decisive}
    outputs = {"FA", "TFA", "RA", "TA", "TV"}
    assert not outputs & {result.test.metric for result in found.failed}


@pytest.mark.parametrize("k", range(1, RETRAINED))
def test_retraining_with_another_seed_lies_within_retraining_variability(measured, k):
    found = judged(measured, f"retrained {k}")
    assert (found.outcome, found.failed) == ("indistinguishable", [])


@pytest.mark.parametrize("name", ["original", "mask", "retrained 0"])
def test_a_model_has_no_distance_to_itself(measured, name):
    own = metrics.compare(measured[name], measured[name])
    for metric, value in own.items():
        aim = metrics.about()[metric].aim
        expected = {"low": 0.0, "high": 1.0, "reference": measured[name].values.get(metric)}[aim]
        assert value == expected
