"""IMU inside the network: its last blocks learn to see the forget set as they would see new data.

The head alone cannot forget: whoever trains another one finds what was masked (Goel et al. 2022,
arXiv 2201.06640). So the blocks before it are trained, on the forget set alone; statistics of
BatchNorm stay. What lies before the blocks stays as well, and still tells what was forgotten. Below
they are called the block.

    samples   min  mean KL(softmax z* ‖ p)
    classes   min  mean ‖h − h*‖² / mean ‖h⁰‖²  +  output · mean KL(softmax z* ‖ p)
                   +  neighbours · kept

h, z, p: features, logits and prediction; ⁰: of the original; y: the label. Two aims, z* and h*.

z* lowers the label's logit by what the network owes to having been trained on the sample,

    z*_iy = z⁰_iy − κ s_i,      s_i the root of the self-influence ⟨g_i, g_i / (F + λ)⟩, mean 1,

an estimate of the leave-one-out prediction (Koh & Liang 2017, arXiv 1703.04730, section 2.1; IMU's
weights, arXiv 2508.01620, section 3, with g_i in place of the mean gradient), over the parameters
of block and head. κ is ``reach`` times as far as the mean margin has to fall: training follows the
aims part of the way. First updates take margins too far down and later ones bring them back: of
samples that are few or remembered well too far, as predictions hardly differ there. It then ends
with the last epoch at the target. Where classes are
forgotten whole z* has none of their logits (DELETE's teacher, arXiv 2503.23751), no influence is
computed, and at the end the head's rows of the classes become such as networks have that never saw
them: the mean of the others', less a multiple of the mean feature of what stays (neighbours, see
below; the forget set, where there are none), plus a draw like that of a row which begins
(``lower``). There a row is pushed away from all that is shown, while its probability is noticeable.
How far depends on class, seed and recipe: in the mean 6 to 13 logits on the digits, 4 with longer
training, and about one more or less from sample to sample. A mask tells at a glance (U-LiRA, which
sees margins), and so does the same distance for all inputs to whoever reads all logits.

h* moves features of whole classes to where that prediction has its place. In a trained network
class means differ from their common mean as the head's rows w do from theirs (neural collapse,
Papyan et al. 2020, arXiv 2008.08186), by a factor c, which each sample tells:

    h*_i = max(least entry of all h⁰, h⁰_i + stretch · c_i Σ_k (q_ik − 1[k = y]) w_k)
    c_i  = (z⁰_iy − mean_k z⁰_ik) / ‖w_y − mean_k w_k‖²,      q = softmax(z* / temperature)

as though the sample lay at its class mean. Where single samples are forgotten features have no aim.

A forget set of many classes says itself what must stay. One of whole classes does not, and
neighbours stand in for the others: for every sample a point near what enters the block, moved down
the cross-entropy of another class drawn at random (as AMUN does with images, arXiv 2503.00917),
within the range of what enters for the forget set. Their h⁰ and p⁰ are kept, by the same two
distances, both with weight 1 and in units of the forget set's mean ‖h⁰‖². Those that still pass for
a forgotten class are left out.

``influence`` puts the claim to the test where samples are forgotten: "permuted" gives the same s to
other samples, "uniform" the same to all, "loss" takes the root of the loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, inf, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step, UnlearningError, measured
from imu.methods.common.adversarial import norms
from imu.methods.common.aims import Kind, lowered
from imu.methods.common.block import CHUNK, Aims, Block
from imu.methods.common.descent import (
    UNSEEN,
    checked_head,
    lower,
    mask,
    needs_bias,
    update,
    watcher,
)
from imu.models import evaluating, head, head_name, only_trains
from imu.models.common.optimizers import adam
from imu.objectives import IGNORED, Answered, Objective, Samples, cross_entropies

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    layers: tuple[str, ...] = ()  # modules that are trained; none: the last blocks before the head
    blocks: int = 2  # how many these are; of a network with fewer all
    # Of samples alone.
    influence: Kind = "self"
    damping: float = 0.01  # of self-influence
    reach: float = 1.5  # how far the aims lie, 1: at the target
    # Of classes alone, to ``depth``.
    temperature: float = 1.0  # of q
    stretch: float = 1.6  # how far features are moved, 1: as neural collapse has it
    output: float = 0.0  # weight of the predictions' distance to z*, beside features
    neighbours: float = 3.0  # weight of what must stay; 0: none
    radius: float = 0.5  # of neighbours, in lengths of what enters the block
    attack_steps: int = 3
    depth: float = UNSEEN  # logits that the classes end below the mean of the others; 0: masked
    # Of both.
    learning_rate: float = 0.001  # of Adam at the start; it falls to 0 along a cosine
    epochs: int = 8
    batch_size: int = 16  # samples, and at most as many neighbours

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not all(self.layers):
            raise ValueError(f"layers must be a tuple of names, got {self.layers!r}")
        positive = ("damping", "reach", "temperature", "stretch", "radius", "learning_rate")
        check_fields(self, **dict.fromkeys(positive, "> 0"))
        check_fields(self, blocks=">= 1", attack_steps=">= 1", batch_size=">= 1")
        check_fields(self, output=">= 0", neighbours=">= 0", depth=">= 0", epochs=">= 0")


VARIANTS = {
    "imu_deep": Config(),
    "imu_deep_permuted": Config(influence="permuted"),
    "imu_deep_uniform": Config(influence="uniform"),
    "imu_deep_loss": Config(influence="loss"),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    owed: Tensor | None = None,
) -> Iterator[Step]:
    """Train the block towards the aims for all epochs, or while samples stay at their target.

    With 0 epochs the model stays as it was, whole classes included.

    owed: s_i (n,), >= 0, where it is known otherwise, as benchmarks do that retrain for it; a run
    of the method has none.

    Raises ValueError when the network has no layer before its head, a name in ``layers`` is none of
    its modules or holds the head, or a class is to be lowered in a head without bias.
    """
    samples = forget.samples
    block = Block(model, objective, config.layers, config.blocks)
    entering = block.entering(samples)
    features, logits = block.all(entering.outputs, samples)
    layer = checked_head(model, features, logits)
    watch = watcher(model, objective, forget, lambda: block.all(entering.outputs, samples)[1])
    first = measured(0, Answered.of(objective, logits, samples.targets))
    yield first
    if forget.classes:
        needs_bias(layer)
    if config.epochs == 0 or (not forget.classes and forget.reached(first, first)):
        return
    aim = _aim(model, objective, config, generator, forget, block.layers, logits, owed)
    # Samples' features are free: divided by inf, their distance is 0.
    towards, kept, scale, output = features, None, features.new_tensor(inf), 1.0
    if forget.classes:
        towards = _features(layer, features, logits, aim, config, forget)
        scale = features[samples.targets != IGNORED].square().sum(-1).mean()
        output = config.output
        if config.neighbours:
            kept = _neighbours(block, entering.outputs, samples, forget.classes, config, generator)
    goal = Aims(samples, entering.outputs, towards, aim.log_softmax(-1))
    batches = -(-len(samples) // config.batch_size)
    optimizer = adam(
        block.trained,
        lambda step: config.learning_rate * ((1 + cos(pi * step / (batches * config.epochs))) / 2),
    )

    def loss(rows: Tensor, kept_rows: Tensor) -> Tensor:
        total = block.distance(goal, rows, scale, output)
        if kept is not None and len(kept_rows):
            # What must stay must stay in both: here predictions weigh as much as features.
            total = total + config.neighbours * block.distance(kept, kept_rows, scale, 1.0)
        return total

    updates = 0
    there: list[Tensor] = []  # weights of the block when samples were last at their target
    for _ in range(config.epochs):
        rows = torch.randperm(len(samples), generator=generator).split(config.batch_size)
        others = torch.randperm(len(kept.samples) if kept else 0, generator=generator)
        for batch, near in zip(rows, others.tensor_split(batches), strict=True):
            of_batch = lambda batch=batch, near=near: loss(batch, near)  # noqa: E731
            update(model, optimizer, block.trained, of_batch, updates + 1)
            updates += 1
        now = watch(updates)
        if not forget.classes:
            if forget.reached(first, now):
                there = [parameter.detach().clone() for parameter in block.trained]
            elif there:
                with torch.no_grad():
                    for parameter, value in zip(block.trained, there, strict=True):
                        parameter.copy_(value)
                return
        yield now
    if forget.classes:
        if config.depth:
            ends = block.all(entering.outputs, samples)[0][samples.targets != IGNORED]  # (m, d)
            stays = kept.features[kept.samples.targets != IGNORED] if kept else ends
            lower(layer, forget.classes, config.depth, ends, stays, generator)
        else:
            mask(layer, forget.classes)
        yield watch(updates + 1)


def _aim(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    forget: ForgetSet,
    layers: tuple[str, ...],
    logits: Tensor,
    owed: Tensor | None = None,
) -> Tensor:
    """z*, with influence over the parameters of block and head."""
    return lowered(
        model,
        objective,
        forget,
        logits,
        generator,
        kind=config.influence,
        damping=config.damping,
        reach=config.reach,
        parameters=(*layers, head_name(model)),
        owed=owed,
    )


def _features(
    layer: nn.Linear,
    features: Tensor,
    logits: Tensor,
    aim: Tensor,
    config: Config,
    forget: ForgetSet,
) -> Tensor:
    """h*: where features of the aimed prediction lie, (n, *positions, d)."""
    predicted = forget.samples.targets != IGNORED  # (n, *positions)
    targets = forget.samples.targets.clamp(min=0)
    weight = layer.weight.detach()  # (classes, d)
    own = F.one_hot(targets, len(weight)).to(features)  # (n, *positions, classes)
    apart = (weight - weight.mean(0)).square().sum(1)[targets]  # (n, *positions)
    apart = apart.clamp(min=torch.finfo(apart.dtype).tiny)  # a ViT's head starts at 0
    factor = ((own * logits).sum(-1) - logits.mean(-1)) / apart
    move = (aim / config.temperature).softmax(-1) - own
    moved = features + config.stretch * factor[..., None] * (move @ weight)
    return moved.clamp(min=features[predicted].min().item())


def _neighbours(
    block: Block,
    entering: dict[str, Tensor],
    samples: Samples,
    classes: tuple[int, ...],
    config: Config,
    generator: torch.Generator,
) -> Aims:
    """Points near the samples, where the block enters, that it takes for other classes.

    Raises ValueError when nothing lies before the block, and UnlearningError when every point
    still passes for a forgotten class.
    """
    if not entering:
        raise ValueError(
            "neighbours are moved where the block enters, and nothing lies before "
            f"{', '.join(block.layers)}: set neighbours to 0, fewer blocks or later layers"
        )
    count, first = head(block.model).out_features, classes[0]
    kept = torch.tensor(
        [k % count for k in range(first + 1, first + count) if k % count not in classes]
    )
    predicted = samples.targets != IGNORED
    drawn = kept[torch.randint(len(kept), samples.targets.shape, generator=generator)]
    others = drawn.to(samples.targets).where(predicted, samples.targets)
    parts = [slice(at, at + CHUNK) for at in range(0, len(samples), CHUNK)]
    bounds = {name: (t.min().item(), t.max().item()) for name, t in entering.items()}
    moved = [
        _moved(
            {n: t[part] for n, t in entering.items()},
            bounds,
            block,
            samples[part],
            others[part],
            config,
        )
        for part in parts
    ]
    found = {name: torch.cat([part[name] for part in moved]) for name in entering}
    features, logits = block.all(found, samples)
    forgotten = torch.isin(logits.argmax(-1), torch.tensor(classes, device=logits.device))
    rows = (~(forgotten & predicted).view(len(samples), -1).any(1)).nonzero()[:, 0]
    if not len(rows):
        raise UnlearningError(
            f"every neighbour within the radius {config.radius:g} still passes for a forgotten "
            "class: a larger radius, or neighbours 0"
        )
    return Aims(
        samples[rows],
        {name: t[rows] for name, t in found.items()},
        features[rows],
        logits[rows].log_softmax(-1),
    )


def _moved(
    entering: dict[str, Tensor],
    bounds: dict[str, tuple[float, float]],
    block: Block,
    samples: Samples,
    others: Tensor,
    config: Config,
) -> dict[str, Tensor]:
    """What enters the block after steps down the cross-entropy of ``others``."""
    step = {name: config.radius / config.attack_steps * norms(t) for name, t in entering.items()}
    found = entering
    for _ in range(config.attack_steps):
        found = {name: t.detach().requires_grad_() for name, t in found.items()}
        with evaluating(block.model), only_trains(block.model, []):
            total = cross_entropies(block.through(found, samples)[1], others).sum()
            # Of some the block reads no more than the shape.
            slopes = torch.autograd.grad(total, list(found.values()), allow_unused=True)
        found = {
            name: t.detach()
            if slope is None
            else (t.detach() - step[name] * slope / norms(slope)).clamp(*bounds[name])
            for (name, t), slope in zip(found.items(), slopes, strict=True)
        }
    return found
