"""How much each forget sample matters to a network: one score per sample.

The gradient g_i of a sample's loss is compared with others under a Fisher matrix F, the empirical
second moment of the forget set's gradients. Choices, each a field of ``Config``:

``score``: what is asked.
    "mean": s_i = −⟨g_i, (F + λ)⁻¹ ḡ⟩. Does removing this sample agree with the mean forget
    gradient ḡ? Negative: it does. IMU, arXiv 2508.01620, section 3; the influence functions of
    Koh & Liang, arXiv 1703.04730, eq. 2, with F for the Hessian and ḡ for the test gradient.
    "self": s_i = ⟨g_i, (F + λ)⁻¹ g_i⟩ >= 0. How much does the network owe this one sample to
    itself? An estimate of memorisation (Feldman & Zhang, arXiv 2008.03703, eq. 1, measures it by
    retraining; TracIn, arXiv 2002.08484, sums ⟨g_i, g_i⟩ over training).
``fisher``: which curvature.
    "diagonal" takes parameters as independent; any size. "full" knows their correlations, which
    for a head are strong as features are shared; for the head alone. "ekfac" knows the larger part
    of them within the weights of linear layers and convolutions (``imu.influences.kronecker``).
``parameters``: where influence is looked for.
    The head has a closed form (``imu.influences.head``): one pass, no gradient of a single sample.
    Deeper parameters also see what the features owe to a sample: by products of what enters and
    leaves layers (``imu.influences.layers``), or for parameters used in other ways by a function of
    them (``imu.influences.parameters``).

How well these agree with retraining: docs/influence-quality.md. Scores for pairs of a training
sample and a query, which tell who made a prediction: ``imu.influences.pairs``.

Assumed: evaluation mode, and for the closed form cross-entropy, one position per sample, and a
linear head whose output is the prediction. Where that does not hold the general form is taken.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imu.bounds import check_fields, one_of, require
from imu.influences.checks import check, finite
from imu.influences.head import Score, head_influence
from imu.influences.layers import layer_bytes, layer_influence
from imu.influences.operations import Unfit
from imu.influences.pairs import full_pairs, pair_influence
from imu.influences.parameters import (
    ParameterInfluence,
    Progress,
    chosen,
    gradient_bytes,
    parameter_influence,
)
from imu.models import has_head, head
from imu.objectives import Objective, Samples, features_and_logits
from imu.objectives.classification import Classification

__all__ = [
    "Config",
    "ParameterInfluence",
    "Progress",
    "ascent_weights",
    "head_influence",
    "held_bytes",
    "influence",
    "layer_influence",
    "pairs",
    "parameter_influence",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    damping: float = 0.01  # added to the Fisher diagonal, same unit (squared gradient)
    damping_share: float = 0.0  # of the mean of that diagonal, added to the damping
    clip_quantile: float = 0.93  # weights above this quantile of the kept weights are cut to it
    top_fraction: float = 1.0  # share of the samples that agree which is kept, largest |s| first
    parameters: tuple[str, ...] = ()  # modules or parameters by name; none: the objective's
    fisher: Literal["diagonal", "full", "ekfac"] = "diagonal"
    score: Score = "mean"
    chunk: int = 64  # samples that run at once; by it memory is bounded
    cache_prefix: bool = True  # run what does not depend on the parameters once

    def __post_init__(self) -> None:
        if isinstance(self.parameters, str):
            raise ValueError(f"parameters must be a tuple of names, got {self.parameters!r}")
        bound = "in (0, 1]"
        check_fields(
            self,
            damping="> 0",
            damping_share=">= 0",
            clip_quantile=bound,
            top_fraction=bound,
            chunk=">= 1",
        )


def influence(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    config: Config,
    progress: Progress | None = None,
) -> Tensor:
    """Influence score of every sample, in the precision of the network: (n,).

    progress: is told how far it is, where there is no closed form.

    Raises ValueError for an empty set, unknown parameters, or ``fisher="full"`` where there is no
    closed form, and FloatingPointError when a score is not finite.
    """
    check(len(samples), config.damping)
    names = config.parameters or objective.influence_parameters(model)
    if config.fisher != "ekfac" and _may_be_closed(model, objective, samples, names):
        features, logits = features_and_logits(model, objective, samples.inputs)
        linear = head(model)
        if _is_output(linear, features, logits):
            return head_influence(
                features,
                logits,
                samples.targets,
                damping=config.damping,
                damping_share=config.damping_share,
                bias=linear.bias is not None,
                fisher=config.fisher,
                score=config.score,
            )
    return _general(model, objective, samples, names, config, progress).scores


def pairs(
    model: nn.Module,
    objective: Objective,
    train: Samples,
    queries: Samples,
    config: Config,
    progress: Progress | None = None,
) -> Tensor:
    """Score of every training sample for every query, (n, m): see ``imu.influences.pairs``.

    Of ``config`` what makes weights of scores, and ``score``, is not used. Memory: the scores;
    gradients of two chunks; for "full" two matrices (n, n).
    Raises as ``influence``.
    """
    check(len(train), config.damping)
    names = config.parameters or objective.influence_parameters(model)
    if config.fisher == "full" and _may_be_closed(model, objective, train, names):
        own, asked = (features_and_logits(model, objective, of.inputs) for of in (train, queries))
        linear = head(model)
        if _is_output(linear, *own) and _is_output(linear, *asked):
            return full_pairs(
                (own[0], asked[0]),
                (own[1], asked[1]),
                (train.targets, queries.targets),
                damping=config.damping,
                damping_share=config.damping_share,
                bias=linear.bias is not None,
            )
    plain = replace(config, score="mean")  # the cheaper one; its scores are not used
    curvature = _general(model, objective, train, names, plain, progress)
    return pair_influence(
        model,
        objective,
        train,
        queries,
        curvature,
        chunk=config.chunk,
    )


def _general(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    names: tuple[str, ...],
    config: Config,
    progress: Progress | None,
) -> ParameterInfluence:
    """Where there is no closed form."""
    if config.fisher == "full":
        raise ValueError(
            "fisher must be diagonal or ekfac unless the parameters are the head's, its output is "
            f"the prediction, and there is one label per sample; got full for {', '.join(names)}"
        )
    choices: dict[str, Any] = {
        "parameters": names,
        "damping": config.damping,
        "damping_share": config.damping_share,
        "chunk": config.chunk,
        "score": config.score,
        "cache_prefix": config.cache_prefix,
        "progress": progress,
    }
    try:
        return layer_influence(model, objective, samples, fisher=config.fisher, **choices)
    except Unfit as error:
        if config.fisher == "ekfac":
            raise ValueError(
                f"fisher must be diagonal where the parameters are used in ways that are not "
                f"known, got ekfac for {', '.join(names)}: {error}"
            ) from error
        return parameter_influence(model, objective, samples, **choices)


def held_bytes(model: nn.Module, objective: Objective, samples: Samples, config: Config) -> int:
    """What is held of gradients at once, at most; 0 where a closed form may do without.

    Runs two samples, to know which form is taken.
    """
    names = config.parameters or objective.influence_parameters(model)
    closed = config.fisher != "ekfac" and _may_be_closed(model, objective, samples, names)
    if len(samples) == 0 or closed:
        return 0
    try:
        return layer_bytes(model, objective, samples, names, config.chunk)
    except Unfit:
        return gradient_bytes(model, names, min(config.chunk, len(samples)))


def _may_be_closed(
    model: nn.Module, objective: Objective, samples: Samples, names: tuple[str, ...]
) -> bool:
    cross_entropy = type(objective).losses is Classification.losses
    if not (isinstance(objective, Classification) and cross_entropy and samples.targets.dim() == 1):
        return False
    if not has_head(model):
        return False
    wanted = {id(parameter) for parameter in chosen(model, names).values()}
    return wanted == {id(parameter) for parameter in head(model).parameters()}


@torch.no_grad()
def _is_output(linear: nn.Linear, features: Tensor, logits: Tensor) -> bool:
    """Whether nothing, a temperature for example, comes between the head and the prediction."""
    if features.dim() != 2 or logits.shape != (len(features), linear.out_features):
        return False
    # Batches of another size round differently; a difference that matters is larger.
    return torch.allclose(linear(features), logits, rtol=1e-3, atol=1e-3, equal_nan=True)


def ascent_weights(
    scores: Tensor, *, score: Score = "mean", clip_quantile: float, top_fraction: float
) -> tuple[Tensor, Tensor]:
    """Weight and selection of each sample, from its influence (arXiv 2508.01620, section 3).

    Kept are samples with s_i < 0, whose gradient agrees with the mean forget gradient (for the
    score "self", which is never negative, those with s_i > 0), and of these the ``top_fraction``
    with the largest |s_i| (at least one). A kept sample weighs sqrt(|s_i|), cut at the
    ``clip_quantile`` of the kept weights; all others weigh 0.

    Returns weights (n,) in the precision of ``scores`` and selected (n,) bool. Raises ValueError
    when no sample is kept or a share is out of range, and FloatingPointError for a score that is
    not finite.
    """
    one_of("score", score, ("mean", "self"))
    require("clip_quantile", clip_quantile, "in (0, 1]")
    require("top_fraction", top_fraction, "in (0, 1]")
    finite(scores)
    agreeing = scores < 0 if score == "mean" else scores > 0
    if not agreeing.any():
        wanted = "negative influence" if score == "mean" else "self-influence above 0"
        raise ValueError(
            f"no forget sample has {wanted}: there is nothing to ascend "
            f"(the scores are taken to be of the kind {score!r})"
        )
    keep = max(1, round(top_fraction * int(agreeing.sum())))
    order = torch.where(agreeing, -scores.abs(), torch.inf).argsort(stable=True)
    selected = torch.zeros_like(agreeing)
    selected[order[:keep]] = True
    weights = torch.where(selected, scores.abs().sqrt(), torch.zeros_like(scores))
    limit = weights[selected].quantile(clip_quantile)
    return weights.clamp(max=limit), selected
