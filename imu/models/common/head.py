"""The head of a network: the linear layer whose output is the prediction.

``find_head`` finds it by what the network computes: in one pass the output of a linear layer is
replaced by random numbers, and the head is the layer for which these numbers are the prediction.
So neither names nor the order of definition matter, and nothing hangs on the weights, which in a
fresh network are often zero. Views and copies of the output are the output; a temperature, a ReLU
or log_softmax after it is not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from imu.models.common.modes import evaluating

WITHOUT_HEAD = "Name influence.parameters, and use methods that move all parameters"
MEMORY = "_imu_head"  # a plain attribute: copied with the network, unknown to its state dict


class _Memory(NamedTuple):
    """What ``find_head`` found: the head's name, or why there is none."""

    name: str = ""
    problem: str = ""


def find_head(model: nn.Module, image: tuple[int, ...] | Tensor, name: str | None = None) -> str:
    """Name of the head, which ``head_name`` and ``head`` give from now on.

    image: shape of one image, (channels, height, width), or inputs as the network takes them,
    at least two, (n, ...). name: a layer that the user says is the head; it is checked. What
    follows a named head may do what a softmax does not see, as log_softmax does.

    A network may return several tensors; the prediction is one of them. The network runs in
    evaluation mode, once, and once more for every linear layer that it calls.

    Raises ValueError when no linear layer, or more than one, is the head, when the head is called
    more than once in a pass, computes its weight or shares it with another module, and when
    ``name`` is not such a layer. That there is no head is remembered as well: ``head_name`` then
    says why.
    """
    inputs = image if isinstance(image, Tensor) else _zeros(model, image)
    if name is not None:
        _check_named(model, inputs, name)
    else:
        try:
            name = _by_structure(model, inputs)
        except ValueError as error:
            vars(model)[MEMORY] = _Memory(problem=str(error))
            raise
    vars(model)[MEMORY] = _Memory(name)
    return name


def without_head(model: nn.Module, why: str) -> None:
    """From now on ``head_name`` raises ValueError and says ``why``."""
    vars(model)[MEMORY] = _Memory(problem=why)


def head_name(model: nn.Module) -> str:
    """Name of the head: what ``find_head`` found, else the last ``nn.Linear`` that was defined.

    Raises ValueError when the network has no head, or one that computes its weight.
    """
    memory: _Memory | None = vars(model).get(MEMORY)
    if memory is None:
        linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise ValueError(
                f"{type(model).__name__} has no nn.Linear layer to serve as the head. "
                f"{WITHOUT_HEAD}"
            )
        _check_written(_linear_layers(model)[linear[-1]], linear[-1])
        return linear[-1]
    if memory.problem:
        raise ValueError(memory.problem)
    if memory.name not in _linear_layers(model):
        raise ValueError(
            f"the head of {type(model).__name__}, {memory.name!r}, is no nn.Linear any more: "
            "call find_head again"
        )
    return memory.name


def head(model: nn.Module) -> nn.Linear:
    """The layer that ``head_name`` names."""
    return _linear_layers(model)[head_name(model)]


def has_head(model: nn.Module) -> bool:
    """Whether ``head_name`` has an answer."""
    try:
        head_name(model)
    except ValueError:
        return False
    return True


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """By every name that they have."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def _by_structure(model: nn.Module, inputs: Tensor) -> str:
    called = _called(model, inputs)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    found = [
        name
        for name, layer in layers.items()
        if layer in called and _gives(model, layer, inputs, _equal)
    ]
    if len(found) > 1:
        choices = ", ".join(found)
        raise ValueError(
            f"{type(model).__name__} predicts with several linear layers: name one of {choices}"
        )
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no linear head: its prediction is not what an nn.Linear "
            f"puts out; the last layer that ran is {_last(model, called)}. {WITHOUT_HEAD}"
        )
    _check_alone(model, found[0], called)
    return found[0]


def _check_named(model: nn.Module, inputs: Tensor, name: str) -> None:
    linear = _linear_layers(model)
    if name not in linear:
        other = dict(model.named_modules(remove_duplicate=False)).get(name)
        found = "is not part of the network" if other is None else f"is a {type(other).__name__}"
        choices = ", ".join(linear) or "none"
        raise ValueError(
            f"the head must be an nn.Linear of {type(model).__name__} ({choices}), "
            f"but {name!r} {found}"
        )
    called = _called(model, inputs)
    if linear[name] not in called:
        raise ValueError(f"the head {name!r} is not called when {type(model).__name__} predicts")
    _check_alone(model, name, called)
    if not _gives(model, linear[name], inputs, _equal_to_softmax):
        raise ValueError(
            f"the output of {name!r} is not the prediction of {type(model).__name__}: the last "
            f"layer that ran is {_last(model, called)}. {WITHOUT_HEAD}"
        )


def _check_alone(model: nn.Module, name: str, called: list[nn.Module]) -> None:
    """Refuse a head without a single input or a weight of its own, which moves alone."""
    layer = _linear_layers(model)[name]
    calls = sum(module is layer for module in called)
    if calls > 1:
        raise ValueError(f"the head {name!r} is called {calls} times in one pass. {WITHOUT_HEAD}")
    _check_written(layer, name)
    own = {id(parameter) for parameter in layer.parameters()}
    for other, module in model.named_modules():
        if module is not layer and any(id(p) in own for p in module.parameters(recurse=False)):
            raise ValueError(
                f"the head {name!r} shares its weight with {other!r}, which would move with it. "
                f"{WITHOUT_HEAD}"
            )


def _check_written(layer: nn.Linear, name: str) -> None:
    """Refuse a head whose weight is no parameter: what is written into it would be lost."""
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ValueError(
            f"the head {name!r} computes its weight from others, as weight_norm does, so that what "
            "is written into it is lost. Put the weight itself back, in the factory and in a "
            "checkpoint: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or "
            "torch.nn.utils.remove_weight_norm(layer)"
        )


def _gives(
    model: nn.Module,
    layer: nn.Linear,
    inputs: Tensor,
    same: Callable[[Tensor, Tensor], bool],
) -> bool:
    """Whether what ``layer`` puts out, and nothing else, is the prediction."""
    noise = torch.empty(0)

    def replace(_: Any, __: Any, output: Tensor) -> Tensor:
        nonlocal noise
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        return noise.clone()  # the network may go on to change it in place

    hook = layer.register_forward_hook(replace)
    try:
        predicted = _outputs(model, inputs)
    finally:
        hook.remove()
    # A gradient means that a second path leads to the prediction, though it may add 0 for now.
    return any(
        not tensor.requires_grad and _alike(tensor, noise) and same(tensor, noise)
        for tensor in predicted
    )


def _alike(tensor: Tensor, noise: Tensor) -> bool:
    return tensor.shape[-1:] == noise.shape[-1:] and tensor.numel() == noise.numel()


def _equal(tensor: Tensor, noise: Tensor) -> bool:
    return torch.equal(tensor.reshape(noise.shape), noise.to(tensor.dtype))


def _equal_to_softmax(tensor: Tensor, noise: Tensor) -> bool:
    found = tensor.reshape(noise.shape).log_softmax(-1)
    # Two roundings of numbers near 1; a temperature changes them by more.
    return torch.allclose(found, noise.to(tensor.dtype).log_softmax(-1), rtol=1e-3, atol=1e-3)


def _called(model: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Modules without children, and linear ones, in the order of their calls in one pass."""
    called: list[nn.Module] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) or not any(m.children())]
    hooks = [
        layer.register_forward_hook(lambda module, *_: called.append(module)) for layer in layers
    ]
    try:
        _outputs(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    with evaluating(model), torch.enable_grad():
        leaves = tree_leaves(model(inputs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _last(model: nn.Module, called: list[nn.Module]) -> str:
    if not called:
        return "unknown"
    names = {id(module): name for name, module in model.named_modules()}
    return f"{names[id(called[-1])]!r} ({type(called[-1]).__name__})"


def _zeros(model: nn.Module, image: tuple[int, ...]) -> Tensor:
    """Two images: with one, exchanged axes would not show. They require a gradient, see _gives."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    # A copy is no leaf, so the network may change it in place.
    return like.new_zeros((2, *image)).requires_grad_().clone()
