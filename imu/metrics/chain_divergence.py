"""Divergence of what a model foretells from the true law of the chain, at every position.

    KL_truth_S   mean_{i, t} KL(q(· | x_{i,≤t}) ‖ p(· | x_{i,≤t})),       S = retain, test, forget
    KL_forgotten mean_{i, t} KL(P_{c(i)}(· | x_{i,t}) ‖ p(· | x_{i,≤t})),  i in the forget set

p is the model's, P_c the law of chain c, c(i) the chain that sequence i was drawn from. q is what
can be foretold by one who knows the chains that stay and no other: Bayes' rule over them
(``Sequences.known``), the law of that chain itself where one stays. So KL_truth_forget tells how
far a model is from one that never heard of the forgotten chains, KL_forgotten how far from one that
knows them. KL(truth ‖ model), means over positions, as SimNPO's program has it (Fan et al. 2024,
arXiv 2410.07163); q and the two views of the forget set are ours.
"""

from collections.abc import Mapping

from imu.metrics import About
from imu.metrics._foretold import Foretold, divergences, lacking

OBJECTIVE = "sequences"
OF = "divergence from what one foretells who knows the chains that stay and no other, "
ABOUT = {
    "KL_truth_retain": About("answers", "reference", "nats", f"{OF}retain set"),
    "KL_truth_test": About(
        "answers", "reference", "nats", f"{OF}sequences that no model was trained on"
    ),
    "KL_truth_forget": About("answers", "reference", "nats", f"{OF}forget set"),
    "KL_forgotten": About(
        "answers",
        "reference",
        "nats",
        "divergence from the true law of the forgotten chains, forget set: 0 where they are known",
    ),
}
NEEDS = {
    "KL_truth_retain": ("retain", 1),
    "KL_truth_test": ("test", 1),
    "KL_truth_forget": ("forget", 1),
    "KL_forgotten": ("forget", 1),
}


def unmet(asked: Mapping[str, int]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, NEEDS)


def measure(foretold: Foretold) -> dict[str, float]:
    """Every name of ``ABOUT`` in nats, those that are not ``unmet``."""
    missing, values = unmet(foretold.asked), {}
    for name, (of, _) in NEEDS.items():
        if name not in missing:
            true = foretold.own[of] if name == "KL_forgotten" else foretold.known[of]
            values[name] = float(divergences(true, foretold.log_probabilities[of]).mean())
    return values
