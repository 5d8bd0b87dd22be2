"""Where forgetting of samples ends: at what the original says of samples that it has not seen.

Kept with a model as a few numbers, from margins log(p_y / (1 − p_y)) of the label y:

    margin   m, mean over unseen samples
    labels   m_c, the same over those of label c; None where there are none: m stands in
    excess   e, mean over the samples that the model was trained on, minus m
    read     tokens that unseen texts are made of; none where inputs are no tokens

Samples F, whose mean margin was M, are forgotten when it is at most

    min( mean_{i in F} m_{y_i},  M − max(e, 0) )

They are then answered as unseen samples of their labels are. Of few samples every third set is so
from the start, by chance; but training gained on each, about e on average, and that has to go.

Of texts a label is a token, at every position where one is predicted. Tokens that unseen texts are
given as well, m_c > 0, tell nothing of having been trained on: how an answer begins, goes on once
its first word is there, and ends. They are left out, of m and e and of what is to be forgotten
(``remembered``); a mean over all of them is reached by answers that never end.

Margins rather than accuracy, which cannot tell few samples, or losses, whose mean is that of the
few worst: to reach it the others must fall far below what retraining gives. On the digits, against
16 retrained networks, the target misses their mean margin by 0.3 for 60 samples (doing nothing:
0.5; the mean loss as target: 1.5) and by 0.9 for 5 (0.8; 2.5), in logits, whose deviation over
samples is 2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.objectives import IGNORED, Objective, Samples, margins_at, mean_over_positions


@dataclass(frozen=True, kw_only=True)
class Unseen:
    margin: float
    labels: Sequence[float | None]
    excess: float
    read: Sequence[int] = ()  # tokens that unseen texts are made of, in order

    def remembered(self, targets: Tensor) -> Tensor:
        """The targets of samples that are to be forgotten, IGNORED where nothing is to be.

        targets: (n,), all of which stay, or of texts (n, positions). A text of which nothing would
        be left stays as it is.
        """
        if targets.dim() == 1:
            return targets
        known = torch.tensor([m is not None and m > 0 for m in self.labels], device=targets.device)
        left = targets.masked_fill(known[targets.clamp(min=0)], IGNORED)
        return torch.where((left == IGNORED).all(1, keepdim=True), targets, left)

    def own(self, inputs: Tensor) -> frozenset[int]:
        """Tokens of a forget set's inputs (n, positions) that no unseen text has."""
        return frozenset(inputs.unique().tolist()) - {*self.read} if self.read else frozenset()

    def target(self, targets: Tensor) -> float:
        """Mean of m_y over samples with these labels (n,), or tokens (n, positions)."""
        means = [self.margin if own is None else own for own in self.labels]
        targets = targets.cpu()
        found = torch.tensor(means, dtype=torch.float64)[targets.clamp(min=0)]
        return float(mean_over_positions(found, targets).mean())

    def without(self, targets: Tensor) -> list[int]:
        """Which of these labels (n,) have no unseen sample."""
        return [label for label in targets.unique().tolist() if self.labels[label] is None]


def unseen(
    trained: Tensor,
    own: Tensor,
    others: Tensor,
    labels: Tensor,
    classes: int,
    *,
    tokens: bool = False,
    read: Tensor | None = None,
) -> Unseen:
    """From margins of what was trained on (m,), with labels ``own``, and of unseen ones (n,), with
    ``labels``; all on the CPU.

    classes: labels there are, at least. tokens: labels are those of texts, a row is a position.
    read: inputs of unseen texts.
    """
    classes = max(classes, 1 + int(torch.cat([own, labels]).max()))
    means = [
        part.mean().item() if len(part := others[labels == label]) else None
        for label in range(classes)
    ]
    if tokens:
        known = torch.tensor([mean is not None and mean > 0 for mean in means])
        trained = trained if known[own].all() else trained[~known[own]]
        others = others if known[labels].all() else others[~known[labels]]
    return Unseen(
        margin=others.mean().item(),
        labels=tuple(means),
        excess=(trained.mean() - others.mean()).item(),
        read=() if read is None else tuple(read.unique().tolist()),
    )


def unseen_by(
    model: nn.Module, objective: Objective, trained: Sequence[Samples], heldout: Samples
) -> Unseen:
    """What ``model`` says of ``heldout``, which it was not trained on, and of what it was.

    Of texts, as everywhere, at the positions that are predicted.
    """

    def lying(*parts: Samples) -> tuple[Tensor, Tensor]:
        predicted = [of.targets != IGNORED for of in parts]
        found = [
            (margins_at(model, objective, of)[at].cpu(), of.targets[at].cpu())
            for of, at in zip(parts, predicted, strict=True)
        ]
        return torch.cat([m for m, _ in found]), torch.cat([t for _, t in found])

    tokens = heldout.targets.dim() > 1
    read = heldout.inputs.cpu() if tokens and isinstance(heldout.inputs, Tensor) else None
    return unseen(*lying(*trained), *lying(heldout), classes=1, tokens=tokens, read=read)
