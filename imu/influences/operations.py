"""What a pass does with some parameters, and what that says of the gradient of every sample.

Operations are noted as they run, by the parameter that they are given: which module calls them, how
often, and with whom it shares the parameter does not matter. Known are those of nn.Linear,
nn.Conv2d, nn.Embedding, rows of a table by their numbers, layer, RMS, group and batch norms,
products and sums by element, and nn.MultiheadAttention of a sequence to itself, which is taken
apart into linear layers.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from imu.influences.parts import Direct, Part, Product, Rows

# An output is (n · k, ...) or (k, n, ...): the samples come first, or second.
Layout = Literal["first", "second"]
LAYOUTS: tuple[Layout, ...] = ("first", "second")
NORMS: dict[Any, tuple[str, ...]] = {
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training"),
}
ARGUMENTS: dict[Any, tuple[str, ...]] = NORMS | {
    F.linear: ("input", "weight", "bias"),
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.embedding: ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq"),
}
PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
BY_CHANNEL = (F.conv2d, F.group_norm, F.batch_norm)  # parameters belong to the second dimension


class Unfit(Exception):
    """The gradients of some parameters are not made of products that are known here."""


@dataclass(frozen=True)
class Call:
    """An operation with parameters, whose names are given by argument, "weight" or "bias".

    edge: where the gradient of its output comes in. repeated: the output was the same for all
    samples, and was repeated for each.
    """

    operation: Any
    arguments: dict[str, Any]
    names: dict[str, str]
    edge: GradientEdge
    repeated: bool

    def parts(
        self, delta: Tensor, layout: Layout, n: int, shapes: Mapping[str, torch.Size]
    ) -> Iterator[tuple[str, Part]]:
        """Name, and what it contributes to the gradients of each parameter of n samples.

        delta: gradient of its output. Raises ``Unfit``.
        """
        for argument, name in self.names.items():
            if argument == "bias" or self.operation in NORMS or self.operation in PRODUCTS:
                own = delta * self._factor(n) if argument == "weight" else delta
                yield name, Direct(_reduced(own, self.operation, layout, n, shapes[name]))
            else:
                yield name, self._product(delta, layout, n, shapes[name])

    def _product(self, delta: Tensor, layout: Layout, n: int, shape: torch.Size) -> Part:
        given = self.arguments["input"].detach()
        given = by_sample(repeated(given, n) if self.repeated else given, layout, n)
        delta = by_sample(delta, layout, n)
        if self.operation is F.linear:
            return Product(given, delta, shape)
        if self.operation is F.conv2d:
            options = {k: v for k, v in self.arguments.items() if k in ARGUMENTS[F.conv2d][3:]}
            return Product(given, delta, shape, options)
        tokens, delta = given.flatten(1), delta.flatten(1, -2)  # (n, t), (n, t, d)
        if self.arguments.get("max_norm") or self.arguments.get("scale_grad_by_freq"):
            raise Unfit("an embedding that changes with its tokens")
        if (padding := self.arguments.get("padding_idx")) is not None:
            delta = delta.masked_fill((tokens == padding % shape[0])[..., None], 0.0)
        return Rows(tokens, delta)

    def _factor(self, n: int) -> Any:
        """What the weight of a norm, or of a product of elements, is multiplied with."""
        if self.operation in PRODUCTS:
            other = self.arguments["input"]
            return other.detach() if isinstance(other, Tensor) else other
        absent = {name: None for name in ("weight", "bias") if name in self.arguments}
        normalised = self.operation(**self.arguments | absent).detach()
        return repeated(normalised, n) if self.repeated else normalised


@dataclass
class Recorder(TorchFunctionMode):
    """Inside, what the network does with some parameters is noted.

    names: of the parameters, by id. samples: how many run. shared: which calls work on what is the
    same for all samples, as positions are; their output is repeated for every sample, so that it
    has gradients of each.
    """

    names: Mapping[int, str]
    samples: int
    shared: frozenset[int] = frozenset()
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(id(given) in self.names for given in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _attention(inspect.signature(func).bind(*args, **kwargs).arguments)
        output = func(*args, **kwargs)
        if func is Tensor.__getitem__ and _picks_rows(args[1]):
            every = torch.arange(len(args[0]), device=args[0].device)
            func, args = F.embedding, (every[args[1]], args[0])
        arguments = self._arguments(func, args, kwargs)
        names = {
            at: self.names[id(value)]
            for at, value in arguments.items()
            if at in ("weight", "bias") and id(value) in self.names
        }
        if not names or not output.requires_grad:
            return output
        if share := len(self.calls) in self.shared:
            output = repeated(output, self.samples)
        self.calls.append(Call(func, arguments, names, get_gradient_edge(output), share))
        return output

    def _arguments(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
        """Of a known operation, by name."""
        if func in ARGUMENTS:
            return dict(zip(ARGUMENTS[func], args, strict=False)) | kwargs
        if func is Tensor.expand:
            return {"bias": args[0]}
        if func in PRODUCTS + SUMS and len(args) == 2 and not kwargs:
            own, other = args if id(args[0]) in self.names else args[::-1]
            return {"weight" if func in PRODUCTS else "bias": own, "input": other}
        return {}


def _picks_rows(index: Any) -> bool:
    return isinstance(index, slice) or (isinstance(index, Tensor) and index.dtype == torch.int64)


def _attention(given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Attention of a sequence to itself: projected before and after, by the identity inside."""
    query, inwards = given["query"], given["in_proj_weight"]
    if (
        inwards is None
        or given["bias_k"] is not None
        or not query is given["key"] is given["value"]
    ):
        raise Unfit("attention to another sequence")
    projected = F.linear(query, inwards, given["in_proj_bias"]).chunk(3, -1)  # (t, n, d) each
    identity = torch.eye(query.shape[-1]).to(query)
    mixed, weights = F.multi_head_attention_forward(
        **given
        | dict(zip(("query", "key", "value"), projected, strict=True))
        | {"in_proj_weight": identity.repeat(3, 1), "in_proj_bias": None}
        | {"out_proj_weight": identity, "out_proj_bias": None}
    )
    return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]), weights


def layout(one: Tensor, other: Tensor) -> Layout | None:
    """How an output of two samples is laid out, given its gradients for the first's loss alone and
    for the second's: what belongs to the other sample is 0. None: not by sample."""
    for found in LAYOUTS:
        if len(one) % 2 if found == "first" else one.dim() < 3 or one.shape[1] != 2:
            continue
        own, others = by_sample(one, found, 2), by_sample(other, found, 2)
        if not own[1].any() and not others[0].any() and (own[0].any() or others[1].any()):
            return found
    return None


def by_sample(tensor: Tensor, layout: Layout, n: int) -> Tensor:
    """(n, k, ...). Raises ``Unfit`` where the tensor is not made of n samples."""
    if layout == "first" and len(tensor) % n == 0:
        return tensor.unflatten(0, (n, -1))
    if layout == "second" and tensor.dim() > 1 and tensor.shape[1] == n:
        return tensor.transpose(0, 1)
    raise Unfit(f"{tuple(tensor.shape)} is not laid out by {n} samples")


def repeated(tensor: Tensor, n: int) -> Tensor:
    """The same for every sample, (n, ...); a first dimension of 1 is that of the samples."""
    return tensor.expand(n, *(tensor.shape[1:] if len(tensor) == 1 else tensor.shape))


def _reduced(delta: Tensor, operation: Any, layout: Layout, n: int, shape: torch.Size) -> Tensor:
    """The sum over all that one number of the parameter meets in a sample: (n, *shape)."""
    dims = delta.dim()
    behind = dims - 2 if operation in BY_CHANNEL else 0
    wide = (1,) * (dims - len(shape) - behind) + tuple(shape) + (1,) * behind
    samples = LAYOUTS.index(layout)
    if not shape or wide[samples] != 1:
        raise Unfit(f"a parameter {tuple(shape)} that is spread over samples")
    kept = [size for at, size in enumerate(wide) if at != samples]
    # (n, k, ...): of samples that come first, the k places share the parameter.
    kept = [1, *kept] if layout == "first" else kept
    return by_sample(delta, layout, n).sum_to_size(n, *kept).reshape(n, *shape)
