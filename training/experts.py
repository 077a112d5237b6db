"""Expert compute: the rows of each expert, put together, times that expert's matrix.

`loop` is the definition and what the CPU uses; `padded` and `torch_grouped` give the same with a fixed number of
kernels, whatever the routing, and are for the GPU. Rows of expert e are [ends[e - 1], ends[e]), ends[-1] being 0.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# (rows [num_rows, k], weight [num_experts, n, k], ends int32 [num_experts]) -> [num_rows, n]
GroupedMatmul = Callable[[Tensor, Tensor, Tensor], Tensor]


def loop(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """One product an expert, in a Python loop over experts. The sizes come to the host."""
    groups = rows.split(torch.diff(ends, prepend=ends.new_zeros(1)).tolist())
    return torch.cat([group @ matrix.T for group, matrix in zip(groups, weight)])


def padded(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """One batched product over groups that are padded to the largest; only that size comes to the host."""
    starts = F.pad(ends[:-1], (1, 0)).long()  # [num_experts]
    group = torch.searchsorted(ends, torch.arange(len(rows), device=rows.device, dtype=ends.dtype), right=True)
    place = group * int((ends - starts).max()) + torch.arange(len(rows), device=rows.device) - starts[group]
    room = rows.new_zeros(weight.shape[0] * int((ends - starts).max()), rows.shape[1])
    product = torch.bmm(room.index_copy(0, place, rows).view(weight.shape[0], -1, rows.shape[1]), weight.mT)
    return product.flatten(0, 1)[place]


def torch_grouped(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """PyTorch's grouped product: nothing comes to the host. bf16; k and n are multiples of 8."""
    return _GROUPED_MM(rows, weight.mT, offs=ends)


_GROUPED_MM = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def _gradients(matmul: GroupedMatmul, device: torch.device) -> list[Tensor]:
    """The product and both gradients of a small problem, on the CPU in float32. One group is empty, none aligned."""
    generator = torch.Generator().manual_seed(1)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, torch.bfloat16)

    rows, weight, upstream = make(64, 16).requires_grad_(), make(4, 32, 16).requires_grad_(), make(64, 32)
    product = matmul(rows, weight, torch.tensor([23, 23, 41, 64], dtype=torch.int32, device=device))
    product.backward(upstream)
    return [tensor.detach().float().cpu() for tensor in (product, rows.grad, weight.grad)]


def choose_grouped_matmul(device: torch.device) -> tuple[GroupedMatmul, str]:
    """The fastest that works on `device`, and why it is not a faster one (empty if none is)."""
    if device.type == "cpu":
        return loop, ""
    if _GROUPED_MM is None:
        return padded, f"PyTorch {torch.__version__} has no grouped_mm"
    try:
        # Both accumulate at most 64 products in float32 and round once to bf16: at most one bf16 step apart.
        for ours, reference in zip(_gradients(torch_grouped, device), _gradients(loop, device)):
            torch.testing.assert_close(ours, reference, rtol=2**-7, atol=2**-7)
    except (RuntimeError, AssertionError) as error:
        return padded, f"grouped_mm: {str(error).splitlines()[0]}"
    return torch_grouped, ""


class _Dispatch(torch.autograd.Function):
    """rows[r] = x[order[r] // top_k]; the gradient is a sum over top_k in a fixed order, without atomics."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return x[order // top_k]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (inverse,) = ctx.saved_tensors
        return gradient[inverse].unflatten(0, (-1, ctx.top_k)).sum(1), None, None, None


class _Permute(torch.autograd.Function):
    """out[i] = rows[inverse[i]] for a permutation whose inverse is `order`."""

    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows[inverse]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (order,) = ctx.saved_tensors
        return gradient[order], None, None


def expert_mlp(
    x: Tensor, topk_idx: Tensor, topk_weights: Tensor, gate_up: Tensor, down: Tensor, matmul: GroupedMatmul
) -> Tensor:
    """sum over the chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x)).

    x [num_tokens, hidden]; topk_idx, topk_weights [num_tokens, top_k]; gate_up [num_experts, 2 * intermediate,
    hidden], gate first; down [num_experts, hidden, intermediate]. Returns float32 [num_tokens, hidden].
    """
    top_k = topk_idx.shape[1]
    chosen, order = topk_idx.flatten().to(torch.int16).sort(stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    experts = torch.arange(gate_up.shape[0], device=x.device, dtype=torch.int16)
    ends = torch.searchsorted(chosen, experts, right=True, out_int32=True)

    rows = _Dispatch.apply(x, order, inverse, top_k)  # [num_tokens * top_k, hidden], expert-major
    gate, up = matmul(rows, gate_up, ends).chunk(2, dim=-1)
    rows = matmul(F.silu(gate) * up, down, ends)
    rows = _Permute.apply(rows, order, inverse).unflatten(0, (-1, top_k))
    return (rows.float() * topk_weights.float().unsqueeze(-1)).sum(1)
