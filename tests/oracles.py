"""Naive, slow, obviously right: what the fast paths are judged against. All in float64."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.objectives import Objective, Samples

Rows = Tensor | np.ndarray


def per_sample(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each sample's cross-entropy, one backward pass each: (n, classes * d + classes).

    The weight comes first, row by row, then the bias.
    """
    gradients = []
    for h, label in zip(features.double(), labels, strict=True):
        w = weight.double().detach().requires_grad_()
        b = bias.double().detach().requires_grad_()
        loss = F.cross_entropy((w @ h + b)[None], label[None])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, (w, b))]))
    return torch.stack(gradients)


def gradients(
    model: nn.Module, objective: Objective, samples: Samples, parameters: list[nn.Parameter]
) -> Tensor:
    """Gradient of each sample's loss, one forward and one backward pass each: (n, P).

    The parameters follow one another as they are given; the network runs in evaluation mode.
    """
    model.eval()
    rows = []
    for i in range(len(samples)):
        sample = samples[i : i + 1]
        loss = objective.losses(objective.logits(model, sample.inputs), sample.targets).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
        )
    return torch.stack(rows).double()


def fisher_diagonal(gradients: Tensor) -> Tensor:
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        total = total + g * g
    return total / len(gradients)


def mean_gradient(gradients: Tensor) -> Tensor:
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        total = total + g
    return total / len(gradients)


def fisher_full(gradients: Tensor) -> Tensor:
    total = torch.zeros(gradients.shape[1], gradients.shape[1], dtype=torch.float64)
    for g in gradients:
        total = total + torch.outer(g, g)
    return total / len(gradients)


def fisher_ekfac(
    model: nn.Module, objective: Objective, samples: Samples, parameters: list[nn.Parameter]
) -> Tensor:
    """Block by block: of weights of linear layers and convolutions turned as their factors say,
    the diagonal of all others."""
    apart = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            apart[id(module.weight)] = module
    blocks = []
    for parameter in parameters:
        g = gradients(model, objective, samples, [parameter])  # (n, p)
        module = apart.get(id(parameter))
        if module is None:
            blocks.append(fisher_diagonal(g).diag())
            continue
        outer, inner = _factors(model, objective, samples, module)
        turn = torch.kron(torch.linalg.eigh(outer)[1], torch.linalg.eigh(inner)[1])  # (p, p)
        blocks.append(turn @ fisher_diagonal(g @ turn).diag() @ turn.T)
    return torch.block_diag(*blocks)


def _factors(
    model: nn.Module, objective: Objective, samples: Samples, module: nn.Module
) -> tuple[Tensor, Tensor]:
    """Σ δ δᵀ and Σ a aᵀ over samples and positions, one sample after the other."""
    outer = inner = torch.zeros(1, 1, dtype=torch.float64)
    for i in range(len(samples)):
        seen = []
        hook = module.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))  # noqa: B023
        sample = samples[i : i + 1]
        loss = objective.losses(objective.logits(model, sample.inputs), sample.targets).sum()
        hook.remove()
        ((given, out),) = seen
        delta = torch.autograd.grad(loss, out)[0]
        if isinstance(module, nn.Conv2d):
            options = (module.kernel_size, module.dilation, module.padding, module.stride)
            step = getattr(module, "step", 1)  # of resnet_small's convolutions of one pixel
            a = F.unfold(given[..., ::step, ::step], *options)[0]  # (i, t)
            d = delta.flatten(2)[0]  # (o, t)
        else:
            a, d = given.flatten(0, -2).T, delta.flatten(0, -2).T
        for t in range(a.shape[1]):
            outer = outer + torch.outer(d[:, t], d[:, t])
            inner = inner + torch.outer(a[:, t], a[:, t])
    return outer.detach(), inner.detach()


def aliased_mean(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Mean gradient as published: the running sum *is* sample 0, which is overwritten.

    Returns the mean and the gradients as the published program then sees them.
    """
    seen = [g.clone() for g in gradients]
    total = seen[0]
    for g in seen[1:]:
        total += g
    return total / len(seen), torch.stack(seen)


def influence(gradients: Tensor, mean: Tensor, fisher: Tensor, damping: float) -> Tensor:
    scores = []
    for g in gradients:
        s = 0.0
        for own, common, f in zip(g.tolist(), mean.tolist(), fisher.tolist(), strict=True):
            s -= own * common / (f + damping)
        scores.append(s)
    return torch.tensor(scores, dtype=torch.float64)


def self_influence(gradients: Tensor, fisher: Tensor, damping: float) -> Tensor:
    scores = []
    for g in gradients:
        s = 0.0
        for own, f in zip(g.tolist(), fisher.tolist(), strict=True):
            s += own * own / (f + damping)
        scores.append(s)
    return torch.tensor(scores, dtype=torch.float64)


def influence_full(
    gradients: Tensor, fisher: Tensor, damping: float, mean: Tensor | None = None
) -> Tensor:
    """−⟨g_i, (F + λI)⁻¹ ḡ⟩ where ``mean`` is given, else ⟨g_i, (F + λI)⁻¹ g_i⟩."""
    damped = fisher + damping * torch.eye(len(fisher), dtype=torch.float64)
    scores = []
    for g in gradients:
        solved = torch.linalg.solve(damped, g if mean is None else -mean)
        scores.append(float(sum(a * b for a, b in zip(g.tolist(), solved.tolist(), strict=True))))
    return torch.tensor(scores, dtype=torch.float64)


def unseen_rows(
    layer: nn.Linear, classes: list[int], depth: float, at: Tensor, along: Tensor, drawn: Tensor
) -> dict[int, list[float]]:
    """Class -> its row and its bias, from numbers (classes, d + 1) drawn in [0, 1).

    at, along: the features (n, k, d) of what is forgotten and of what stays.
    """
    rows = [[*w.tolist(), b.item()] for w, b in zip(layer.weight, layer.bias, strict=True)]
    others = [row for k, row in enumerate(rows) if k not in classes]

    def mean(vectors: list[list[float]]) -> list[float]:
        return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]

    f, k = (mean(of.flatten(0, 1).tolist()) for of in (at, along))
    a = depth / (sum(x * x for x in k) + 1)
    less = [*(a * x for x in k), depth - a * sum(x * y for x, y in zip(f, k, strict=True))]
    most = 1 / math.sqrt(layer.in_features)
    return {
        c: [
            m - x + most * (2 * r.item() - 1)
            for m, x, r in zip(mean(others), less, draw, strict=True)
        ]
        for c, draw in zip(classes, drawn, strict=True)
    }


def log_unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_i log(1 − p_y) from log-sums, so that autograd of it holds where p_y rounds to 1."""
    total = torch.zeros((), dtype=torch.float64)
    for z, label in zip(logits, labels.tolist(), strict=True):
        others = torch.stack([z[k] for k in range(len(z)) if k != label])
        total = total + others.logsumexp(0) - z.logsumexp(0)
    return total


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.double().detach().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


def shifted(images: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Image i read from ``rows[i]`` lower and ``columns[i]`` further right; outside is 0."""
    moved = torch.zeros_like(images)
    n, channels, height, width = images.shape
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    v, u = y + rows[i], x + columns[i]
                    if 0 <= v < height and 0 <= u < width:
                        moved[i, c, y, x] = images[i, c, v, u]
    return moved


def accuracy(
    probabilities: Rows, labels: Rows, keep: Callable[[int], bool] = lambda label: True
) -> float:
    right = asked = 0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        if keep(label):
            asked += 1
            right += row.index(max(row)) == label
    return 100 * right / asked


def total_variation(p: Rows, q: Rows) -> float:
    distances = []
    for one, other in zip(p.tolist(), q.tolist(), strict=True):
        distances.append(sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2)
    return math.fsum(distances) / len(distances)


def kullback_leibler(p: Rows, q: Rows, floor: float) -> float:
    """Mean KL(p ‖ q) of rows that were raised to ``floor`` and divided by their sum."""
    divergences = []
    for one, other in zip(p.tolist(), q.tolist(), strict=True):
        raised = [[max(v, floor) for v in row] for row in (one, other)]
        a, b = ([v / sum(row) for v in row] for row in raised)
        divergences.append(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True)))
    return math.fsum(divergences) / len(divergences)


def jensen_shannon(p: Rows, q: Rows) -> float:
    divergences = []
    for one, other in zip(p.tolist(), q.tolist(), strict=True):
        total = 0.0
        for a, b in zip(one, other, strict=True):
            for own in (a, b):
                if own > 0:
                    total += own * math.log(2 * own / (a + b)) / 2
        divergences.append(total)
    return math.fsum(divergences) / len(divergences)


def wasserstein_of_classes(p: Rows, q: Rows) -> float:
    """Mean |difference| of the predicted class numbers, the least against the least and so on."""
    one, other = (sorted(row.index(max(row)) for row in rows.tolist()) for rows in (p, q))
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def entropy(probabilities: Rows) -> list[float]:
    return [-sum(p * math.log(p) for p in row if p > 0) for row in probabilities.tolist()]


def modified_entropy(probabilities: Rows, labels: Rows, floor: float) -> list[float]:
    values = []
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        value = 0.0
        for k, p in enumerate(row):
            if k == label:
                value -= (1 - p) * math.log(max(p, floor))
            else:
                value -= p * math.log(max(1 - p, floor))
        values.append(value)
    return values


def modified_entropy_published(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The wrong one of SalUn's evaluation/SVC_MIA.py, which the published attack uses.

    ``[:, labels]`` names the columns of all labels of the batch in every row, and the logarithm
    that should be of 1 − p is of p.
    """
    weights = probabilities.copy()
    weights[:, labels] = 1 - probabilities[:, labels]
    return -(weights * np.log(np.where(probabilities > 0, probabilities, 1e-30))).sum(1)


def tug_of_war(judged: dict[str, float], reference: dict[str, float]) -> float:
    return math.prod(1 - abs(judged[name] - reference[name]) / 100 for name in ("FA", "RA", "TA"))


def average_gap(judged: dict[str, float], reference: dict[str, float]) -> float:
    total, count = 0.0, 0
    for name in ("FA", "RA", "TFA", "TA", "MIA"):
        if name in judged:
            total += abs(judged[name] - reference[name])
            count += 1
    return total / count


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Mean of log Σ_k exp z_k − z_y over samples."""
    total = 0.0
    for z, label in zip(logits.double(), labels.tolist(), strict=True):
        total += float(z.logsumexp(0) - z[label])
    return total / len(logits)


def margin(logits: Tensor, labels: Tensor) -> float:
    """Mean of z_y − log Σ_{k≠y} exp z_k over samples."""
    total = 0.0
    for z, label in zip(logits.double(), labels.tolist(), strict=True):
        total += float(z[label] - torch.cat([z[:label], z[label + 1 :]]).logsumexp(0))
    return total / len(logits)


def pgd(
    gradient: Callable[[Tensor], Tensor],
    image: Tensor,
    radius: float,
    steps: int,
    bounds: tuple[float, float],
) -> Tensor:
    """Projected gradient ascent of one flat image (d,) in the L2 ball around it."""
    low, high = bounds
    found = image
    for _ in range(steps):
        slope = gradient(found)
        away = found + 2.5 * radius / steps * slope / math.sqrt(float(slope @ slope)) - image
        length = math.sqrt(float(away @ away))
        away = away * (radius / length) if length > radius else away
        moved = [min(max(v, low), high) for v in (image + away).tolist()]
        found = torch.tensor(moved, dtype=image.dtype)
    return found


def woodfisher(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """(λI + 1/m Σ g gᵀ)⁻¹ v by the rank-one recursion of Singh & Alistarh, arXiv 2004.14340."""
    m, width = gradients.shape
    inverse = torch.eye(width, dtype=torch.float64) / damping
    for g in gradients:
        along = inverse @ g
        inverse = inverse - torch.outer(along, along) / (m + g @ along)
    return inverse @ vector


def kl(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)) of one sample's logits (classes,)."""
    total = torch.zeros((), dtype=torch.float64)
    p, q = (teacher / temperature).softmax(0), (student / temperature).softmax(0)
    for k in range(len(p)):
        if p[k] > 0:
            total = total + p[k] * (p[k].log() - q[k].log())
    return total


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    asked: np.ndarray,
    truth: np.ndarray,
    *,
    scaled: bool = True,
    penalty: float = 1.0,
) -> float:
    """Accuracy in % of Σ ‖V x + b − e‖² + penalty · ‖V‖², as least squares with a row per penalty.

    ``scaled``: units are standardised by those of ``features`` and divided by √d.
    """
    mean, deviation = features.mean(0), features.std(0) * math.sqrt(features.shape[1])
    if not scaled:
        mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
    known, new = (features - mean) / deviation, (asked - mean) / deviation
    classes, scores = sorted(set(labels.tolist())), []
    for c in classes:
        wanted = [float(label == c) for label in labels] + [0.0] * known.shape[1]
        rows = [[*x, 1.0] for x in known] + [
            [*x, 0.0] for x in penalty**0.5 * np.eye(known.shape[1])
        ]
        found, *_ = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)
        scores.append(new @ found[:-1] + found[-1])
    said = [classes[int(np.argmax(row))] for row in np.stack(scores, 1)]
    return 100 * float(np.mean([f == t for f, t in zip(said, truth.tolist(), strict=True)]))


def prototypes(
    features: np.ndarray,
    labels: np.ndarray,
    drawn: dict[int, np.ndarray],
    rest: dict[int, np.ndarray],
    centred: bool,
) -> float:
    """Accuracy in % on ``rest`` of the nearest prototype by cosine.

    features, labels: validation. drawn, rest: forgotten class -> the forget features of which its
    prototype is made, and those that are asked. ``centred``: origin at the retained prototypes.
    """
    deviation = features.std(0)
    kept = sorted(set(labels.tolist()) - drawn.keys())
    means = [sum(h for h, y in zip(features, labels, strict=True) if y == c) for c in kept]
    means = [m / sum(y == c for y in labels) for m, c in zip(means, kept, strict=True)]
    origin = sum(means) / len(means) if centred else np.zeros(features.shape[1])
    means += [sum(own) / len(own) for own in drawn.values()]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (a - origin) / deviation, (b - origin) / deviation
        return float(sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b)))

    right = asked = 0
    for place, own in enumerate(rest.values()):
        for h in own:
            near = [cosine(h, m) for m in means]
            right += near.index(max(near)) == len(kept) + place
            asked += 1
    return 100 * right / asked


def leakage(one: Rows, other: Rows, labels: Rows) -> float:
    """Total variation of the wrong labels of two models, by true class, weighted by count."""
    total = 0.0
    for c in sorted(set(labels.tolist())):
        shares = []
        for rows in (one, other):
            share = [0.0] * len(rows[0])
            mine = [row for row, y in zip(rows.tolist(), labels.tolist(), strict=True) if y == c]
            for row in mine:
                wrong = max((p, -k) for k, p in enumerate(row) if k != c)
                share[-wrong[1]] += 1 / len(mine)
            shares.append(share)
        distance = sum(abs(a - b) for a, b in zip(*shares, strict=True)) / 2
        total += distance * len(mine) / len(labels)
    return total


def klom(judged: Rows, oracles: Rows) -> list[float]:
    """Σ_b p_b log(p_b / max(q_b, 1e-5)), sample by sample; rows are models.

    Of the bins 20 are equal, and two hold the margins at ±100.
    """
    values = []
    for ours, theirs in zip(judged.T.tolist(), oracles.T.tolist(), strict=True):
        inside = [m for m in (*ours, *theirs) if abs(m) < 100]
        low, width = min(inside), (max(inside) - min(inside)) / 20
        counts = [[0] * 22, [0] * 22]
        for side, margins in enumerate((ours, theirs)):
            for margin in margins:
                b = 0
                while b < 19 and margin >= low + (b + 1) * width:
                    b += 1
                counts[side][20 if margin <= -100 else 21 if margin >= 100 else b] += 1
        total = 0.0
        for a, b in zip(*counts, strict=True):
            if a > 0:
                p, q = a / len(ours), b / len(theirs)
                total += p * math.log(p / max(q, 1e-5))
        values.append(total)
    return values


def u_lira(judged: Rows, oracles: Rows) -> tuple[float, float]:
    """Advantage in points, and 2s − 1 of the judged models; rows are models."""

    def density(m: float, others: list[float]) -> float:
        inside = [v for v in others if abs(v) < 100]
        if abs(m) >= 100:
            return others.count(m) / len(others)
        mean = sum(inside) / len(inside)
        variance = sum((v - mean) ** 2 for v in inside) / (len(inside) - 1)
        tall = math.exp(-((m - mean) ** 2) / (2 * variance)) / math.sqrt(variance)
        return tall * len(inside) / len(others)

    scores: list[list[float]] = [[], []]
    for ours, theirs in zip(judged.T.tolist(), oracles.T.tolist(), strict=True):
        for i in range(len(ours)):
            f, n = ([v for j, v in enumerate(side) if j != i] for side in (ours, theirs))
            for seen, side in zip(scores, (ours, theirs), strict=True):
                had, never = density(side[i], f), density(side[i], n)
                seen.append(had / (had + never) if had + never > 0 else 0.5)
    called = [sum((s > 0.5) + (s == 0.5) / 2 for s in seen) / len(seen) for seen in scores]
    return 100 * (called[0] - called[1]), 2 * sum(scores[0]) / len(scores[0]) - 1


def answer_log_probabilities(logits: Tensor, targets: Tensor) -> list[float]:
    """log p of each token of one answer, softmax written out. logits: (T, V); targets: (T,)."""
    values = []
    for z, target in zip(logits.double().tolist(), targets.tolist(), strict=True):
        if target >= 0:
            top = max(z)
            values.append(z[target] - top - math.log(sum(math.exp(v - top) for v in z)))
    return values


def greedy(model: nn.Module, given: list[int], most: int, end: int) -> list[int]:
    """One token after the other, one pass each."""
    said: list[int] = []
    while len(said) < most:
        token = int(model(torch.tensor([given + said]))[0, -1].argmax())
        if token == end:
            break
        said.append(token)
    return said


def common_subsequence(one: list[str], other: list[str]) -> int:
    """Length of the longest, by the recursion."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common_subsequence(one[1:], other[1:])
    return max(common_subsequence(one[1:], other), common_subsequence(one, other[1:]))


def truth_ratio(true: float, wrong: list[float]) -> float:
    """Geometric mean of wrong probabilities over the true one, from log-probabilities."""
    return math.prod(math.exp(w) for w in wrong) ** (1 / len(wrong)) / math.exp(true)


def extraction_strength(right: list[bool]) -> float:
    for k in range(len(right) + 1):
        if all(right[k:]):
            return 1 - k / len(right)
    raise AssertionError


def area_under_curve(members: list[float], others: list[float]) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    return 100 * sum(pairs) / len(pairs)


def kolmogorov_smirnov(one: list[float], other: list[float]) -> float:
    return max(
        abs(sum(v <= r for v in one) / len(one) - sum(v <= r for v in other) / len(other))
        for r in one + other
    )


def rounded_to_4_bits(weight: Tensor) -> Tensor:
    """Each row to the nearest of 15 levels, the largest of which is its largest entry."""
    rows = []
    for row in weight.tolist():
        top = max(abs(v) for v in row)
        levels = [top * k / 7 for k in range(-7, 8)]
        rows.append([min(levels, key=lambda level: abs(level - v)) for v in row])
    return torch.tensor(rows, dtype=weight.dtype)


def layout(tokens, prompts, answers) -> tuple[list[list[int]], list[list[int]]]:
    """Rows and targets of ``Tokens.encode``, a position at a time.

    One sequence with the end is written out; the row is all of it but the last token, and the
    target at a position is the token after it, if that comes after the prompt.
    """
    numbers = tokens._tokenizer
    rows, targets = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        of_prompt = numbers.encode(prompt).ids if prompt else []
        of_answer = numbers.encode(" " + answer if prompt else answer).ids
        whole = [tokens.start, *of_prompt, *of_answer, tokens.end]
        rows.append(whole[:-1])
        targets.append(
            [whole[t + 1] if t + 1 > len(of_prompt) else -100 for t in range(len(whole) - 1)]
        )
    width = max(len(row) for row in rows)
    for row, target in zip(rows, targets, strict=True):
        while len(row) < width:
            row.append(tokens.pad)
            target.append(-100)
    return rows, targets


def paired(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key, (o, i), as llama.cpp keeps them, from how transformers does.

    Of each head the rows 0, h/2, 1, h/2 + 1, …, h being its rows.
    """
    height = len(weight) // heads
    rows = [
        head * height + half * height // 2 + pair
        for head in range(heads)
        for pair in range(height // 2)
        for half in range(2)
    ]
    return weight[torch.tensor(rows)].contiguous()


def search(query, person, camera, gallery) -> tuple[float, float, list[int]]:
    """Average precision, rank of the first right image, and the order, by a loop over one gallery.

    What shows ``person`` to ``camera`` is left out, and stands last in the order.
    """

    def length(x) -> float:
        return math.sqrt(sum(float(v) ** 2 for v in x)) or 1.0

    kept, out = [], []
    for place in range(len(gallery.people)):
        own = gallery.people[place] == person and gallery.cameras[place] == camera
        product = sum(
            float(a) * float(b) for a, b in zip(query, gallery.features[place], strict=True)
        )
        cosine = product / length(query) / length(gallery.features[place])
        (out if own else kept).append((round(-cosine, 10), place))
    kept.sort()  # of equals the one that comes first in the gallery
    hits, total, first = 0, 0.0, math.nan
    for rank, (_, place) in enumerate(kept, start=1):
        if gallery.people[place] == person:
            hits += 1
            total += hits / rank
            first = rank if hits == 1 else first
    order = [place for _, place in kept] + [place for _, place in out]
    return (total / hits if hits else math.nan), first, order
