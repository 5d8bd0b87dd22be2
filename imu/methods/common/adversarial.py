"""Adversarial neighbours of forget samples, for methods that train on them.

Inputs must be one tensor of real numbers with a known range (``Objective.bounds``), and every
sample must have one target; each function raises ValueError otherwise.
"""

import torch
from torch import Tensor, nn

from imu.methods import UnlearningError
from imu.models import evaluating
from imu.objectives import Objective, Samples, margins, predictions

DOUBLINGS = 20  # of the first radius: from 0.1 to 1e5, beyond any picture


def perturbed(objective: Objective, images: Tensor, step: Tensor) -> Tensor:
    """``images`` + ``step``, kept in the range of valid inputs."""
    assert objective.bounds is not None
    return (images + step).clamp(*objective.bounds)


def gradient(model: nn.Module, objective: Objective, images: Tensor, targets: Tensor) -> Tensor:
    """Gradient of log((1 − p_y) / p_y) with respect to each input; same shape as ``images``.

    It has the direction of cross-entropy's gradient, without vanishing where p_y rounds to 1.
    """
    images = images.detach().requires_grad_()
    with evaluating(model):
        total = -margins(objective.logits(model, images), targets).sum()
    return torch.autograd.grad(total, images)[0]


def fgsm(model: nn.Module, objective: Objective, samples: Samples, epsilon: float) -> Tensor:
    """x + ε sign(∂CE/∂x) (Goodfellow et al. 2015, arXiv 1412.6572, section 4)."""
    images = continuous(objective, samples)
    step = epsilon * gradient(model, objective, images, samples.targets).sign()
    return perturbed(objective, images, step)


def pgd(
    model: nn.Module,
    objective: Objective,
    images: Tensor,
    targets: Tensor,
    radius: Tensor,
    steps: int,
    *,
    towards: bool = False,
) -> Tensor:
    """Projected gradient in the L2 ball (Madry et al. 2018, arXiv 1706.06083), from its centre.

    radius: (n,), in the unit of the inputs. ``steps`` steps of 2.5 radius / steps each, up the
    cross-entropy of ``targets``, or down it where ``towards``.
    """
    found, sign = images, -1.0 if towards else 1.0
    bound = radius.view(-1, *[1] * (images.dim() - 1))  # (n, 1, ...)
    for _ in range(steps):
        slope = gradient(model, objective, found, targets)
        move = found + sign * 2.5 / steps * bound * slope / norms(slope) - images
        found = perturbed(objective, images, move * (bound / norms(move)).clamp(max=1))
    return found


def nearest(
    model: nn.Module, objective: Objective, samples: Samples, radius: float, steps: int
) -> tuple[Tensor, Tensor]:
    """For each sample an input that the model takes for another class, and that class.

    The radius of ``pgd`` doubles until the prediction is wrong (AMUN, arXiv 2503.00917, algorithm
    1). A sample that the model gets wrong already is its own neighbour. Raises UnlearningError when
    one cannot be found.
    """
    images, targets = continuous(objective, samples), samples.targets
    found = images.clone()
    labels = predictions(model, objective, images).argmax(-1)
    radii = torch.full((len(images),), radius, dtype=images.dtype, device=images.device)
    for _ in range(DOUBLINGS):
        left = (labels == targets).nonzero()[:, 0]
        if len(left) == 0:
            return found, labels
        found[left] = pgd(model, objective, images[left], targets[left], radii[left], steps)
        labels[left] = predictions(model, objective, found[left]).argmax(-1)
        radii[left] *= 2
    if (labels == targets).any():
        raise UnlearningError(
            f"no adversarial neighbour of {int((labels == targets).sum())} forget samples was "
            f"found within {radius * 2 ** (DOUBLINGS - 1):g}"
        )
    return found, labels


def continuous(objective: Objective, samples: Samples) -> Tensor:
    """The inputs, where they can be perturbed."""
    images = samples.inputs
    if (
        objective.bounds is None
        or not isinstance(images, Tensor)
        or not images.is_floating_point()
        or samples.targets.dim() != 1
    ):
        raise ValueError(
            "this method perturbs its inputs: they must be one tensor of real numbers within "
            "Objective.bounds, with one target per sample"
        )
    return images


def norms(values: Tensor) -> Tensor:
    """L2 norm of each sample, at least the smallest normal number: (n, 1, ...)."""
    flat = values.flatten(1).norm(dim=1).clamp(min=torch.finfo(values.dtype).tiny)
    return flat.view(-1, *[1] * (values.dim() - 1))
