"""Where forgetting of samples ends: at what the original says of samples that it has not seen.

Kept with a model as a few numbers, from margins log(p_y / (1 − p_y)) of the label y:

    margin   m, mean over unseen samples
    labels   m_c, the same over those of label c; None where there are none: m stands in
    excess   e, mean over the samples that the model was trained on, minus m

Samples F, whose mean margin was M, are forgotten when it is at most

    min( mean_{i in F} m_{y_i},  M − max(e, 0) )

They are then answered as unseen samples of their labels are. Of few samples every third set is so
from the start, by chance; but training gained on each, about e on average, and that has to go.

Margins rather than accuracy, which cannot tell few samples, or losses, whose mean is that of the
few worst: to reach it the others must fall far below what retraining gives. On the digits, against
16 retrained networks, the target misses their mean margin by 0.3 for 60 samples (doing nothing:
0.5; the mean loss as target: 1.5) and by 0.9 for 5 (0.8; 2.5), in logits, whose deviation over
samples is 2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Unseen:
    margin: float
    labels: Sequence[float | None]
    excess: float

    def target(self, targets: Tensor) -> float:
        """Mean of m_y over samples with these labels (n,)."""
        means = [self.margin if own is None else own for own in self.labels]
        return float(torch.tensor(means, dtype=torch.float64)[targets.cpu()].mean())

    def without(self, targets: Tensor) -> list[int]:
        """Which of these labels (n,) have no unseen sample."""
        return [label for label in targets.unique().tolist() if self.labels[label] is None]


def unseen(trained: Tensor, others: Tensor, labels: Tensor, classes: int) -> Unseen:
    """From margins of the samples trained on (m,) and of unseen ones (n,) with ``labels`` (n,)."""
    own = [others[labels == label] for label in range(classes)]
    return Unseen(
        margin=others.mean().item(),
        labels=tuple(part.mean().item() if len(part) else None for part in own),
        excess=(trained.mean() - others.mean()).item(),
    )
