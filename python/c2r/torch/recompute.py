"""Activation checkpointing: a recomputation reuses what the forward pass has decided.

A recomputed router may decide otherwise (bf16 kernels of another batch, dropout, noise), and then ranks would exchange
rows that nobody expects, and hang. So routing and handles are made once:

    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False, context_fn=c2r.torch.reuse_routing)
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class _Store:
    """What one call of checkpoint() has decided, in the order of the program."""

    def __init__(self) -> None:
        self.decisions: list = []
        self.next: int | None = None  # None: the forward pass; else what the recomputation gets next


class _Stores(threading.local):
    """The stores of the calls of checkpoint() around what this thread runs now, innermost last."""

    def __init__(self) -> None:
        self.stack: list[_Store] = []


_STORES = _Stores()


@contextlib.contextmanager
def _using(store: _Store, is_recomputing: bool, inner: contextlib.AbstractContextManager) -> Iterator[None]:
    store.next = 0 if is_recomputing else None
    _STORES.stack.append(store)
    try:
        with inner:
            yield
    finally:
        _STORES.stack.pop()


Contexts = tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]


def reuse_routing(inner: Contexts | None = None) -> Contexts:
    """The `context_fn` for torch.utils.checkpoint.checkpoint(use_reentrant=False) around layers with experts.

    inner: contexts to enter as well, those of create_selective_checkpoint_contexts().

    A recomputation sends tokens to their experts again, but does not bring the last chunk's sums back again if nothing
    behind the layer needs them. With a policy that saves the outputs of c2r.torch.EXCHANGES it sends nothing.

    >>> from torch.utils.checkpoint import checkpoint
    >>> x = torch.ones(2, requires_grad=True)
    >>> checkpoint(torch.square, x, use_reentrant=False, context_fn=reuse_routing).sum().backward()
    >>> x.grad.tolist()
    [2.0, 2.0]
    """
    store = _Store()
    forward, recomputation = inner or (contextlib.nullcontext(), contextlib.nullcontext())
    return _using(store, False, forward), _using(store, True, recomputation)


def is_in_backward() -> bool:
    """Whether the caller runs inside a backward pass of this thread, where forward code is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def decide(make: Callable[[], T], is_required: bool = True) -> T:
    """make(), and in a recomputation what it returned in the forward pass.

    In a recomputation without reuse_routing() it is an error, a RuntimeError, if is_required; else make() again.

    >>> decide(lambda: 7)
    7
    """
    if torch.compiler.is_compiling():
        return make()
    store = _STORES.stack[-1] if _STORES.stack else None
    if store is None:
        if is_required and is_in_backward():
            raise RuntimeError("activation checkpointing recomputes a routing, and ranks hang where it differs; pass "
                               "use_reentrant=False and context_fn=c2r.torch.reuse_routing to "
                               "torch.utils.checkpoint.checkpoint()")  # fmt: skip
        return make()
    if store.next is None:
        store.decisions.append(make())
        return store.decisions[-1]
    store.next += 1
    return store.decisions[store.next - 1]
