"""Other answers for the forget set, shared by the methods that relabel or distil."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.objectives import IGNORED, Objective, Samples, mean_over_positions, predictions


def random_other(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A label drawn uniformly from the ``classes`` − 1 wrong ones; IGNORED stays.

    targets: (n, *positions); same shape back. Drawn on the CPU: the same on every device.
    """
    offset = torch.randint(1, classes, targets.shape, generator=generator).to(targets.device)
    return torch.where(targets == IGNORED, targets, (targets + offset) % classes)


def without(logits: Tensor, targets: Tensor, value: float = -torch.inf) -> Tensor:
    """``logits`` (n, *positions, classes) with that of the target set to ``value``.

    Where the target is IGNORED nothing is changed.
    """
    kept = (targets == IGNORED)[..., None]
    index = targets.clamp(min=0)[..., None]
    return torch.where(kept, logits, logits.scatter(-1, index, value))


def distilled(
    model: nn.Module, objective: Objective, samples: Samples, teacher: Tensor
) -> Callable[[Tensor], Tensor]:
    """Mean KL(softmax(teacher) ‖ p) of rows of ``samples``; teacher: (n, *positions, classes)."""
    wanted = teacher.log_softmax(-1)

    def loss(rows: Tensor) -> Tensor:
        found = objective.logits(model, samples[rows].inputs).log_softmax(-1)
        apart = F.kl_div(found, wanted[rows], reduction="none", log_target=True).sum(-1)
        return mean_over_positions(apart, samples.targets[rows]).mean()

    return loss


def taught(
    model: nn.Module,
    objective: Objective,
    sets: Sequence[Samples],
    teachers: Sequence[Tensor | None],
    *,
    temperature: float = 1.0,
) -> Callable[[Tensor], Tensor]:
    """Mean KL(softmax(teacher) ‖ softmax(z / temperature)) of rows of the sets, one after another.

    teachers: logits (n, *positions, classes) of each set; None: the loss of its targets instead.
    """
    wanted = [None if of is None else of.log_softmax(-1) for of in teachers]
    starts = [sum(map(len, sets[:number])) for number in range(len(sets))]

    def loss(rows: Tensor) -> Tensor:
        total = torch.zeros((), device=sets[0].targets.device)
        for samples, start, target in zip(sets, starts, wanted, strict=True):
            which = rows[(rows >= start) & (rows < start + len(samples))] - start
            if not len(which):
                continue
            batch = samples[which]
            logits = objective.logits(model, batch.inputs)
            if target is None:
                total = total + objective.losses(logits, batch.targets).sum()
                continue
            found = (logits / temperature).log_softmax(-1)
            # Where q is 0 its logarithm is −∞, and the term is 0.
            q = target[which].exp()
            apart = torch.special.xlogy(q, q) - torch.where(q > 0, q * found, 0.0)
            total = total + mean_over_positions(apart.sum(-1), batch.targets).sum()
        return total / len(rows)

    return loss


def relabelled_loss(
    model: nn.Module,
    objective: Objective,
    forget: Samples,
    retain: Samples,
    generator: torch.Generator,
) -> Callable[[Tensor], Tensor]:
    """Mean loss of rows of D_f ∪ D_r, where D_f, the first rows, has random wrong labels."""
    classes = predictions(model, objective, forget[:1].inputs).shape[-1]
    wrong = Samples(forget.inputs, random_other(forget.targets, classes, generator))

    def loss(rows: Tensor) -> Tensor:
        total = torch.zeros((), device=forget.targets.device)
        of_forget = rows < len(forget)
        for part, which in ((wrong, rows[of_forget]), (retain, rows[~of_forget] - len(forget))):
            if len(which):
                batch = part[which]
                logits = objective.logits(model, batch.inputs)
                total = total + objective.losses(logits, batch.targets).sum()
        return total / len(rows)

    return loss
