"""Fine-tune relearning: how soon, and from how little, is the forgotten learned again?

A copy of the network is fine-tuned, all layers, on one half of the forget set mixed with validation
samples of the other classes (of all, where no class is forgotten whole). After every step its
accuracy is taken on the *other* half, and on as many retained samples, neither of which it trains
on; the lower of the two counts, so naming the class everywhere regains nothing. Of large sets 500
samples are asked. A step descends

    ½ mean CE(forget samples) + ½ mean CE(validation samples)

by SGD. BatchNorm keeps its statistics. Test samples take no part.

    relearn_steps    steps until the accuracy is regained: the original model's on the forget set,
                     less 10 points. 0 where the network as given has it; 40, the number of steps,
                     where it was not regained.
    relearn_samples  forget samples needed to regain it within 40 steps, asked after every fourth:
                     1, 2, 5, 10, 20 or the half, by bisection, as though more never hurt. 0 as
                     above; the size of the forget set where its half did not suffice.
    relearn_auc      mean accuracy over the 40 steps in %, with the half. The steadiest of the
                     three: it does not hang on when a threshold is crossed.

The head's rows of classes forgotten whole start from the mean of the retained rows. Otherwise a
mask would pass: SGD does not climb out of a bias of −1e4, but whoever holds the weights need not
try. After the relearn time of Golatkar et al. 2020, arXiv 1911.04933, and the anamnesis index of
Chundawat et al. 2023, arXiv 2201.05629; the held-out half and the control are ours.

Caution: the learning rate is absolute. A network whose layers are in another scale learns at
another pace though it answers alike; the probe and the prototypes do not depend on scale.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Subject

MAX_STEPS = 40
TOLERANCE = 10.0  # points below the original accuracy; at 5, retrained models miss it by chance

NEEDS_HEAD = True
ABOUT = {
    "relearn_auc": About(
        "features",
        "reference",
        "%",
        f"mean accuracy on one half of the forget set over {MAX_STEPS} steps of fine-tuning on the "
        "other",
    ),
    "relearn_steps": About(
        "features",
        "reference",
        "steps",
        f"until the forget accuracy is within {TOLERANCE:g} points of the original model's; "
        f"{MAX_STEPS} also where it never is",
    ),
    "relearn_samples": About(
        "features",
        "reference",
        "samples",
        f"forget samples needed for that in {MAX_STEPS} steps; the size of the forget set where "
        "half of it is not enough",
    ),
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured on samples of these labels."""
    sizes = len(labels["forget"]), len(labels["retain"])
    if sizes[0] < 2 or sizes[1] == 0:
        why = "needs at least 2 forget samples and a retained one, got {} and {}".format(*sizes)
    elif np.isin(labels["validation"], forget_classes).all():
        why = "needs validation samples of classes that are not forgotten"
    else:
        return {}
    return dict.fromkeys(ABOUT, why)


def attack(subject: Subject, steps: int = MAX_STEPS) -> dict[str, float]:
    """{"relearn_steps", "relearn_samples", "relearn_auc"}; nothing where they are ``unmet``.

    steps: fewer only try whether the network can be attacked; the values are then none.
    """
    labels = {name: samples.targets.cpu().numpy() for name, samples in subject.samples.items()}
    if unmet(labels, subject.outputs.forget_classes):
        return {}
    from imu.metrics import _fine_tuning  # and torch, which needs not be there to read ABOUT

    return _fine_tuning.attack(subject, steps)
