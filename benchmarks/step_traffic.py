"""The memory traffic and the FLOPs of one operation of torch on a GPU, from shapes and dtypes.

Each operand and each result counts once, in the size of its dtype. An operand is read and a result is
written, except that

- an operand that is changed in place is read and written. It is only written if its old value does not
  matter: by `copy_`, `fill_`, `zero_`, random numbers, `out=`, and for the sum in `addmm` if beta is 0.
- only the distinct elements of an operand count, if it is expanded or unfolded, or given twice.
- `embedding`, `index_select`, `gather` and `index` read the indices, and of the table as many elements as
  they return, but at most all of them once.
- `scatter_`, `scatter_add_` and `index_add_` change as many elements as they are given, but at most all of
  them once. `scatter_` does not read them.
- a fused optimiser only reads the gradients, unless it is given their scale.
- a fused kernel does what its module says in `TRAFFIC`. A compiled function reads and writes its arguments
  once, as `COMPILED` says.

FLOPs are those of matrix products, 2 m n k, and of fused kernels whose modules register them by
`torch.utils.flop_counter.register_flop_formula`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_modules.nn.kernels.traffic import TRAFFIC, Traffic
from lightning_modules.nn.recurrent import lstm_cell

COMPILED: dict[Callable[..., Any], tuple[tuple[int, ...], tuple[int, ...]]] = {
    lstm_cell.forward: ((0, 1, 2, 3), (0, 4, 5)),
    lstm_cell.backward: ((0, 1, 2, 3, 4), (0, 4)),
}
"""The positions of the arguments that a compiled function reads, and of those that it writes."""

CREATIONS = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}
OVERWRITING = {"copy_", "fill_", "zero_", "bernoulli_", "uniform_", "normal_", "scatter_"}
SUMS = {"addmm": "mat1", "addmm_": "mat1", "baddbmm": "batch1", "baddbmm_": "batch1"}
PRODUCTS = {"mm": "self", "bmm": "self", "mv": "self", **SUMS}
"""The left matrix of a product."""
GATHERS = {"embedding": "weight", "index_select": "self", "gather": "self", "index": "self"}
"""The table that an operation reads from."""
SCATTERS = {"scatter_": "index", "scatter_add_": "index", "index_add_": "source"}
"""The argument with as many elements as an operation changes."""


def traffic_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Traffic:
    """Return the bytes of the device that an operation reads and writes.

    Args:
        func: an operation of torch.
        args, kwargs: its arguments.
        result: its result.
    """
    schema = func._schema
    if func.namespace == "biloom":
        assert schema.name in TRAFFIC, f"{schema.name}: tell its traffic in TRAFFIC"
        return TRAFFIC[schema.name](*args, **kwargs)
    name = name_of(func)
    values = _values(func, args, kwargs)
    loads: dict[Any, int] = {}
    stores: dict[Any, int] = {}
    for argument in schema.arguments:
        operands = _sizes(values.get(argument.name))
        changes = argument.alias_info is not None and argument.alias_info.is_write
        if changes and not (name.startswith("_fused_") and argument.name == "grads" and
                            values.get("grad_scale") is None):  # fmt: skip
            stores |= operands
        if not _is_overwritten(name, argument, values):
            loads |= operands
    results = (result,) if len(schema.returns) == 1 else result or ()
    for one, returned in zip(results, schema.returns, strict=True):
        if returned.alias_info is None:
            stores |= _sizes(one)
    if name in GATHERS:
        table = values[GATHERS[name]]
        loads[_key(table)] = min(size(table), size(result))
    if name in SCATTERS:
        changed = values["self"]
        some = min(size(changed), values[SCATTERS[name]].numel() * changed.itemsize)
        for moved in (loads, stores):
            moved |= {_key(changed): some} if _key(changed) in moved else {}
    return Traffic(sum(loads.values()), sum(stores.values()))


def traffic_of_compiled(function: Callable[..., Any], args: tuple[Any, ...]) -> Traffic:
    """Return the bytes that the compiled form of a function reads and writes."""
    return Traffic(*(sum(size(args[i]) for i in positions) for positions in COMPILED[function]))


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Return the FLOPs of an operation; arguments are those of `traffic_of`."""
    name = name_of(func)
    if name in PRODUCTS:
        return 2 * result.numel() * int(_values(func, args, kwargs)[PRODUCTS[name]].shape[-1])
    formula = flop_registry.get(func._overloadpacket) if func.namespace == "biloom" else None
    return int(formula(*args, **kwargs, out_val=result)) if formula else 0


def name_of(func: Any) -> str:
    """Return the name of an operation without its overload, and without `aten`."""
    name: str = func._schema.name
    return name.removeprefix("aten::")


def is_on_device(tensor: Tensor) -> bool:
    """Return True if a tensor is on a GPU."""
    return tensor.device.type == "cuda"


def size(tensor: Tensor) -> int:
    """Return the bytes of the distinct elements of a tensor."""
    if not tensor.numel():
        return 0
    run, runs = 1, 1  # length of a run of elements, and number of runs
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if stride and runs == 1 and stride <= run:
            run += (length - 1) * stride
        elif stride:
            runs *= length
    return run * runs * tensor.itemsize


def _values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name."""
    names = (argument.name for argument in func._schema.arguments)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _is_overwritten(name: str, argument: Any, values: dict[str, Any]) -> bool:
    """Return whether an operation does not read an operand."""
    if argument.is_out:
        return True
    if argument.name != "self":
        return False
    return name in OVERWRITING | CREATIONS or (name in SUMS and values.get("beta") == 0)


def _sizes(value: Any) -> dict[Any, int]:
    """Return the bytes of each tensor on the device in a value."""
    tensors = (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
    return {_key(tensor): size(tensor) for tensor in tensors if is_on_device(tensor)}


def _key(tensor: Tensor) -> tuple[Any, ...]:
    """Return what identifies a view of memory."""
    place = tensor.untyped_storage()._cdata, tensor.storage_offset()
    return (*place, tensor.shape, tensor.stride(), tensor.dtype)
