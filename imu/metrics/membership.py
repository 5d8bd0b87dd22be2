"""MIA, forget efficacy: the % of the forget set that a membership attack calls non-member.

An RBF SVC (C = 3, gamma "auto") learns to tell retained training samples (members) from
validation samples (non-members) by the model's confidence p_y, as many of each. The aim is the
retrained model's value, not 100. Source: Fan et al. 2024 (SalUn), arXiv 2310.12508, appendix C.
Test samples take no part, so the attack never sees what test accuracy is reported on. Where
classes are forgotten whole, validation samples of these classes are left out.

Validation samples serve twice in sample-wise forgetting: here, and as the accuracy at which
methods stop. Caution: the attack learns from confidences near 1. Where a model gives the forget
set confidences near 0, as after class-wise forgetting, it extrapolates and may answer 0 or 100 from
seed to seed.
"""

import numpy as np

from imu.metrics import About, Outputs

ABOUT = {
    "MIA": About(
        "reference",
        "%",
        "share of the forget set that a membership attack on confidence calls unseen; after "
        "class-wise forgetting it can flip between 0 and 100 by chance, and the gap with it",
    )
}


def measure(outputs: Outputs) -> dict[str, float]:
    """{"MIA": %}. Raises ValueError when there are no members or no non-members."""
    from sklearn.svm import SVC

    members = outputs.confidence("retain")
    others = outputs.confidence("validation")[~outputs.of_forgotten_class("validation")]
    size = min(len(members), len(others))
    if size == 0:
        raise ValueError(
            f"the membership attack needs members and non-members, got {len(members)} retained "
            f"and {len(others)} validation samples"
        )
    draw = np.random.default_rng(outputs.seed)
    members = draw.choice(members, size, replace=False)
    others = draw.choice(others, size, replace=False)
    attack = SVC(C=3.0, gamma="auto", kernel="rbf")
    attack.fit(
        np.concatenate([members, others])[:, None],
        np.concatenate([np.ones(size), np.zeros(size)]),
    )
    called_member = attack.predict(outputs.confidence("forget")[:, None])
    return {"MIA": float(100 * (called_member == 0).mean())}
