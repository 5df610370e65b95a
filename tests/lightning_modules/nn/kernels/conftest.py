"""Triton's interpreter, which runs the kernels on the CPU, and counts what they load and store."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lightning_modules.nn import kernels
from lightning_modules.nn.kernels.traffic import Traffic


class Interpreter:
    """The bytes that the interpreter has loaded and stored since `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.loads = self.stores = 0

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.loads, self.stores)


@contextmanager
def _unchanged(*owners: Any) -> Iterator[None]:
    """Restore the attributes of modules and classes after the block.

    The interpreter of Triton 3.8 leaves some of those that it replaces for functions that kernels call. Nothing
    could be compiled in this process afterwards.
    """
    former = [dict(vars(owner)) for owner in owners]
    yield
    for owner, attributes in zip(owners, former, strict=True):
        for name in vars(owner).keys() - attributes.keys():
            delattr(owner, name)
        for name, value in attributes.items():
            if vars(owner)[name] is not value:
                setattr(owner, name, value)


@pytest.fixture(scope="module")
def interpreter(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    """Let operations call copies of their kernels that Triton's interpreter runs.

    The test module names the modules of the kernels in ``INTERPRETED``.
    `triton.jit` decides when it decorates a function, so the copies work wherever Triton was imported.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    import triton.language as tl
    from triton import knobs
    from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle

    counter = Interpreter()
    real = {
        name: getattr(InterpreterBuilder, name)
        for name in ("create_dot", "create_masked_load", "create_masked_store")
    }

    def exact(x: Any) -> Any:
        """Convert bfloat16, which is stored as uint16, to float32; create_dot does not."""
        if x.dtype.scalar != tl.bfloat16:
            return x
        return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot(builder: Any, a: Any, b: Any, *others: Any) -> Any:
        return real["create_dot"](builder, exact(a), exact(b), *others)

    def load(builder: Any, pointers: Any, mask: Any, *others: Any) -> Any:
        result = real["create_masked_load"](builder, pointers, mask, *others)
        counter.loads += int(mask.data.sum()) * result.data.itemsize
        return result

    def store(builder: Any, pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
        counter.stores += int(mask.data.sum()) * value.data.itemsize
        return real["create_masked_store"](builder, pointers, value, mask, *others)

    with (
        _unchanged(tl, tl.core, tl.math, tl.tensor, tl.dtype),
        pytest.MonkeyPatch.context() as patch,
        knobs.runtime.scope(),
        np.errstate(all="ignore"),
    ):
        knobs.runtime.interpret = True
        for name, ours in zip(real, (dot, load, store), strict=True):
            patch.setattr(InterpreterBuilder, name, ours)
        for name in ("max", "sum"):
            function = getattr(tl, name)
            if not isinstance(function, InterpretedFunction):
                patch.setattr(tl, name, InterpretedFunction(function.fn))
        for name in request.module.INTERPRETED:
            spec = importlib.util.find_spec(f"{kernels.__name__}.{name}")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            patch.setitem(sys.modules, spec.name, module)
            patch.setattr(kernels, name, module, raising=False)
        yield counter
