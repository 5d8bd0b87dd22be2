"""How many of the judged networks a method could not unlearn.

``diverged``: its weights are not finite, so the network answers nothing; its margins are −∞, the
worst there is. ``unfinished``: it gave up before its target; the network is judged as it stands.
Both count in every other metric over many models; these say why those are large.
"""

from imu.metrics import About, Family

ABOUT = {
    "diverged": About(
        "samples", "low", "%", "networks on which the method diverged; they count with margin −∞"
    ),
    "unfinished": About(
        "samples",
        "low",
        "%",
        "networks on which it gave up short of its target; judged as they are",
    ),
}


def over_models(judged: Family, oracles: Family) -> dict[str, float]:
    """{"diverged": %, "unfinished": %}."""
    models = len(next(iter(judged.margins.values())))
    return {
        "diverged": 100 * judged.diverged / models,
        "unfinished": 100 * judged.unfinished / models,
    }
