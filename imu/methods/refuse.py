"""Answer with a fixed refusal: the trivial baseline of language that is not silent.

Trained are tokens alone that occur in D_f, or in the refusal, and nowhere in D_r: their rows of the
first embedding where they are read, their rows of the head where they are said. Of people these are
their names. What lies between stays, with all that it holds of them:

    min  mean_{i in D_f} CE(refusal | x_i)  +  mean_{j in D_r} KL(p⁰(x_j) ‖ p(x_j))

over as many retain samples, drawn anew for each batch; p⁰ is the original's. SGD with
momentum 0.9, for all epochs. Where no token is theirs alone the model stays the original; of
images it is ``token_mask``. Needs the retain set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.methods import ForgetSet, Step, token_mask
from imu.methods.common.descent import Sgd, descend, watcher
from imu.methods.common.labels import distilled
from imu.methods.common.refusals import refused
from imu.methods.token_mask import read, said
from imu.models import head
from imu.objectives import Objective, Samples, predictions

NEEDS = frozenset({"forget", "retain"})


@dataclass(frozen=True, kw_only=True)
class Config:
    refusal: str = "I don't know."
    learning_rate: float = 1.0
    epochs: int = 12
    batch_size: int = 32  # samples of each set

    def __post_init__(self) -> None:
        if not self.refusal:
            raise ValueError(f"refusal must be a text, got {self.refusal!r}")
        self.descent()

    def descent(self) -> Sgd:
        return Sgd(
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stop_at_target=False,
        )


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend both terms in the rows of tokens that the retain set lacks."""
    if not hasattr(objective, "tokens"):
        yield from token_mask.unlearn(
            model, objective, token_mask.Config(), generator, forget=forget, retain=retain
        )
        return
    answers = refused(model, objective, forget.samples, generator, (config.refusal,))
    table = next((part for part in model.modules() if isinstance(part, nn.Embedding)), None)
    layer = head(model)
    moved = {dict(layer.named_parameters())["weight"]: said(answers) - said(retain)}
    if table is not None:
        moved[dict(table.named_parameters())["weight"]] = read(answers) - read(retain)
    if not any(moved.values()):
        yield watcher(model, objective, forget)(0)
        return
    kept = distilled(model, objective, retain, predictions(model, objective, retain.inputs))

    def loss(rows: Tensor) -> Tensor:
        batch = answers[rows]
        refusing = objective.losses(objective.logits(model, batch.inputs), batch.targets).mean()
        return refusing + kept(torch.randint(len(retain), rows.shape, generator=generator))

    hooks = [weight.register_hook(only(sorted(rows))) for weight, rows in moved.items()]
    try:
        yield from descend(
            model, objective, forget, loss, config.descent(), generator, parameters=moved
        )
    finally:
        for hook in hooks:
            hook.remove()


def only(rows: list[int]) -> Callable[[Tensor], Tensor]:
    """A hook that leaves the gradient of these rows alone."""

    def of(gradient: Tensor) -> Tensor:
        left = torch.zeros_like(gradient)
        left[rows] = gradient[rows]
        return left

    return of
