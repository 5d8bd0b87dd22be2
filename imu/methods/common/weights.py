"""The weights that influence gives to samples, and the controls that put them to the test."""

import torch
from torch import Tensor


def weights_by(kind: str, influence: Tensor, generator: torch.Generator) -> Tensor:
    """(n,): ``influence``; the same "permuted" among the samples; or "uniform", all 1.

    Raises ValueError where all influence is 0.
    """
    if not influence.sum() > 0:
        raise ValueError("the influence weights are all 0: there is nothing to ascend")
    if kind == "permuted":
        order = torch.randperm(len(influence), generator=generator)
        return influence[order.to(influence.device)]
    return torch.ones_like(influence) if kind == "uniform" else influence
