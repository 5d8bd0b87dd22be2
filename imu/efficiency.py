"""What unlearning costs, held against retraining."""

from imu.bounds import require


def rte(retraining: float, unlearning: float) -> float:
    """Run-time efficiency: cost of retraining / cost of unlearning, influence included.

    Both in the same unit, seconds or operations. Source: arXiv 2508.01620, section 4. Raises
    ValueError when a cost is not positive.
    """
    for name, value in (("retraining", retraining), ("unlearning", unlearning)):
        require(f"the cost of {name}", value, "> 0")
    return retraining / unlearning
