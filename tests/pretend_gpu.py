"""A GPU where there is none: tensors that lie "away" and compute on the CPU.

``python -m tests.pretend_gpu [--near] STAGE...`` runs stages of the current folder, named as in
dvc.yaml, on it, or on the CPU for comparison, without DVC and MLflow. What a GPU refuses is refused
here: tensors of two devices in one operation, ``numpy()`` of what lies away, random numbers of a
generator that does not, pinned memory asked for away, and operations that have no deterministic
implementation on GPUs. In a backward pass, which runs in a thread that no error leaves, it is noted
in ``LATER`` and told at the end.

Of ``torch.utils.backend_registration``, which calls its interface experimental. Not seen here:
what depends on the name "cuda" (free memory, pinned memory, nccl), kernels themselves, numbers
without dimensions that lie on the CPU where an operation wants them away, and lower precision:
autocast leaves everything in float32.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils import backend_registration

NAME = "pretend"
torch.utils.rename_privateuse1_backend(NAME)  # else torch takes CUDA for the accelerator
DEVICE = torch.device(NAME, 0)
LATER: list[str] = []
USED = 0  # operations with results away
aten = torch.ops.aten

MOVES = {aten._to_copy.default, aten.copy_.default}
# Indices may lie on the CPU.
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
# Under torch.use_deterministic_algorithms, whose documentation lists them.
NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "max_unpool2d",
    "max_unpool3d",
    "nll_loss2d_forward",
    "nll_loss2d_backward",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}
# Made whole at once: through their ``out`` variants they would change the shape of what they fill.
FACTORIES = (
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "linspace",
    "randperm",
    "randperm.generator",
)


class Away(Tensor):
    """What lies on the device; ``near`` is the tensor on the CPU that has its content."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "Away":
        made = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        made.near = near
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Away({self.near})"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return computed(operation, args, kwargs or {})

    # Of tensors of Python torch makes none from lists, and leaves what they hold where it is.

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor.__getitem__(self, _listed(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        Tensor.__setitem__(self, _listed(key), value)

    def tolist(self) -> list[Any]:
        return self.near.tolist()

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, new: "Away") -> None:
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.near = new.near


def _listed(key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    found = tuple(
        # Of an empty list torch would make float32, which is no index.
        _tensor(each, dtype=None if each else torch.int64) if isinstance(each, list) else each
        for each in keys
    )
    return found if isinstance(key, tuple) else found[0]


_tensor = torch.tensor


def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    made = _tensor(data, **options)
    return made if device is None else made.to(device)


_new_tensor = Tensor.new_tensor


def new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
    """Also of what torch.func wraps around such a tensor."""
    if self.device.type != NAME:
        return _new_tensor(self, data, **options)
    return tensor(data, **{"dtype": self.dtype, "device": self.device} | options)


def computed(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU; the result lies away if an argument does, or ``device`` says so.

    Raises RuntimeError for what a GPU refuses.
    """
    leaves = tree.tree_leaves((args, kwargs))
    away = [leaf for leaf in leaves if isinstance(leaf, Away)]
    device = kwargs.get("device")
    results_away = bool(away) if device is None else torch.device(device).type == NAME
    _refuse(operation, args, kwargs, leaves, results_away)
    global USED
    USED += results_away
    if operation is aten.copy_.default:
        into, given = (x.near if isinstance(x, Away) else x for x in args[:2])
        into.copy_(given)
        return args[0]
    owners = {id(leaf.near): leaf for leaf in away}
    near_args, near_kwargs = tree.tree_map(
        lambda leaf: leaf.near if isinstance(leaf, Away) else leaf, (args, kwargs)
    )
    if device is not None:
        near_kwargs["device"] = "cpu"
    results = operation(*near_args, **near_kwargs)
    if torch.Tag.inplace_view in operation.tags:
        _reshape(args[0])
    for leaf in away:
        if (leaf.shape, leaf.stride()) != (leaf.near.shape, leaf.near.stride()):
            raise RuntimeError(f"{operation} changes the shape of an argument")

    def owned(result: Any) -> Any:
        if not isinstance(result, Tensor) or not results_away:
            return result
        return owners[id(result)] if id(result) in owners else Away(result)

    return tree.tree_map(owned, results)


def _refuse(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], to_away: bool
) -> None:
    if operation in INDEXED and isinstance(args[0], Away):
        leaves = tree.tree_leaves((args[0], args[2:], kwargs))
    written = {
        id(value)
        for value, argument in zip(args, operation._schema.arguments, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    near = [
        leaf
        for leaf in leaves
        if isinstance(leaf, Tensor)
        and not isinstance(leaf, Away)
        and (leaf.ndim > 0 or id(leaf) in written)  # other scalars may come from the CPU
    ]
    mixed = near and any(isinstance(leaf, Away) for leaf in leaves) and operation not in MOVES
    name = operation._schema.name.removeprefix("aten::")
    weighted = name == "bincount" and len(args) > 1 and args[1] is not None
    indexed = name in ("median", "nanmedian") and operation._overloadname == "dim"
    why = ""
    if mixed:
        why = f"tensors on cpu, of shapes {[tuple(each.shape) for each in near]}, and on {NAME}"
    elif to_away and (name in NOT_DETERMINISTIC or weighted or indexed):
        why = "no deterministic implementation on GPUs"
    elif to_away and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        why = f"a generator on cpu for numbers on {NAME}"
    elif to_away and kwargs.get("pin_memory"):
        why = "only memory of the CPU can be pinned"
    if not why:
        return
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError(f"{operation}: {why}")
    LATER.append(f"{operation}: {why}")


def _reshape(changed: Away) -> None:
    near = changed.near
    with torch._C._DisableTorchDispatch():
        aten.as_strided_(changed, near.size(), near.stride(), near.storage_offset())


def register() -> None:
    """Make the device known to torch, for the whole of this process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.tensor = tensor  # type: ignore[assignment]
    Tensor.new_tensor = new_tensor  # type: ignore[method-assign]
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda op, *args, **kwargs: computed(op, args, kwargs), "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    of_aten = torch.library.Library("aten", "IMPL")
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(aten, packet), overload or "default")
        of_aten.impl(
            name,
            lambda *args, _op=operation, **kwargs: computed(_op, args, kwargs),
            "PrivateUse1",
        )
    _KEPT.extend([everything, of_aten])


_KEPT: list[torch.library.Library] = []  # what they registered ends with them


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def main(arguments: list[str]) -> None:
    from imu import discovery
    from tasks.files.workspace import Workspace
    from tasks.graph.stages import stages as every_stage

    register()
    stages = [name for name in arguments if name != "--near"]
    if stages == arguments:
        of_cpu = Workspace.device

        def device(workspace: Workspace) -> torch.device:
            of_cpu(workspace)  # threads, and that algorithms must be deterministic
            return DEVICE

        Workspace.device = device  # type: ignore[method-assign]
    workspace = Workspace(Path.cwd())
    known = every_stage(workspace.root)
    for name in stages:
        before = USED
        discovery.load("tasks", known[name].stage).run(workspace, known[name].item)
        print(f"{name}: {USED - before} operations away")
        if LATER:
            raise RuntimeError(f"{name}: {LATER[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
