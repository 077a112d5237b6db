"""Experts of several chunks whose weight gradients are computed once, while the gradients of rows travel.

The backward pass of a chunk computes the gradient of its rows, which other ranks wait for, and keeps what the gradients
of the matrices need. When all chunks have set off, one product for each expert makes those from the rows of all chunks:
as large as without chunks, summed without rounding in between, and behind no link.

    experts = DeferredExperts(gate_up, down)  # after the rows of all chunks but the last were sent, before they arrive
    out = experts(rows, local_idx, weights, num_pairs)  # for each chunk

Autograd runs what is ready in the order in which it was made, last first. So the node of __init__ runs after those that
wait for rows in the forward pass, which send gradients, and before those that send rows, which wait for gradients.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from c2r.torch.experts import expand, grouped, grouped_matmul_for, loop, sum_pairs


def swiglu(gate_up_rows: Tensor) -> Tensor:
    """silu(gate) * up of [num_rows, 2 * intermediate], gate first."""
    gate, up = gate_up_rows.chunk(2, dim=-1)
    return F.silu(gate) * up


def _weight_gradient(upstream: list[Tensor], rows: list[Tensor], ends: list[Tensor], is_grouped: bool) -> Tensor:
    """[num_experts, n, k]: for each expert the sum over its rows of upstream [num_rows, n] times rows [num_rows, k]."""
    last = ends[0]
    if len(ends) > 1:
        # The rows of an expert, put together; ends are of each chunk.
        sizes = [torch.diff(end, prepend=end.new_zeros(1)) for end in ends]
        experts = torch.arange(len(last), device=last.device)
        owners = [experts.repeat_interleave(size, output_size=len(x)) for size, x in zip(sizes, rows)]
        order = torch.cat(owners).sort(stable=True).indices
        upstream, rows = [torch.cat(upstream)[order]], [torch.cat(rows)[order]]
        last = torch.stack(ends).sum(0, dtype=torch.int32)
    if is_grouped:
        return F.grouped_mm(upstream[0].mT, rows[0], offs=last)
    sizes = torch.diff(last, prepend=last.new_zeros(1)).tolist()
    return torch.stack([u.T @ x for u, x in zip(upstream[0].split(sizes), rows[0].split(sizes))])


class _Weights(torch.autograd.Function):
    """A token of one element that stands for the matrices; its gradient stands for theirs."""

    @staticmethod
    def forward(ctx, experts, gate_up, down):
        ctx.experts = experts
        return gate_up.new_zeros(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        kept, is_grouped = ctx.experts.kept, ctx.experts.matmul is grouped
        rows, of_hidden, hidden, of_out, ends = zip(*kept)
        kept.clear()
        _, needs_gate_up, needs_down = ctx.needs_input_grad
        return (
            None,
            _weight_gradient(of_hidden, rows, ends, is_grouped) if needs_gate_up else None,
            _weight_gradient(of_out, hidden, ends, is_grouped) if needs_down else None,
        )


class _Mlp(torch.autograd.Function):
    """down(activation(gate_up(rows))) of rows by expert."""

    @staticmethod
    def forward(ctx, experts, token, rows, ends):
        gate_up_rows = experts.matmul(rows, experts.gate_up, ends)
        out = experts.matmul(experts.activation(gate_up_rows), experts.down, ends)
        ctx.experts = experts
        ctx.save_for_backward(rows, gate_up_rows, ends)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_out):
        experts, (rows, gate_up_rows, ends) = ctx.experts, ctx.saved_tensors
        of_out = of_out.contiguous()
        of_hidden = experts.matmul(of_out, experts.down.mT, ends)
        with torch.enable_grad():
            leaf = gate_up_rows.detach().requires_grad_()
            hidden = experts.activation(leaf)
        (of_gate_up,) = torch.autograd.grad(hidden, leaf, of_hidden)
        of_gate_up = of_gate_up.contiguous()
        _, needs_token, needs_rows, _ = ctx.needs_input_grad
        if needs_token:
            experts.kept.append((rows, of_gate_up, hidden.detach(), of_out, ends))
        of_rows = experts.matmul(of_gate_up, experts.gate_up.mT, ends) if needs_rows else None
        return None, of_out.new_zeros(1) if needs_token else None, of_rows, None


class DeferredExperts:
    """The experts of a rank, for the chunks of one forward pass."""

    def __init__(self, gate_up: Tensor, down: Tensor, activation: Callable[[Tensor], Tensor] = swiglu) -> None:
        """gate_up [num_experts, 2 * intermediate, hidden], down [num_experts, hidden, intermediate], as expert_mlp().

        activation: from rows of gate_up [num_rows, 2 * intermediate] to [num_rows, intermediate].
        """
        self.matmul = grouped_matmul_for(gate_up) if grouped_matmul_for(down) is grouped else loop
        self.gate_up, self.down, self.activation = gate_up.detach(), down.detach(), activation
        self.kept: list[tuple[Tensor, ...]] = []  # of each chunk, what the gradients of the matrices need
        self.token = _Weights.apply(self, gate_up, down)

    def __call__(self, rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int) -> Tensor:
        """What expert_mlp() returns, with the same gradients up to rounding.

        >>> x, gate_up, down = torch.ones(1, 1), torch.ones(1, 2, 1), torch.ones(1, 1, 1)
        >>> DeferredExperts(gate_up, down)(x, torch.zeros(1, 1).short(), torch.full((1, 1), 2.0), 1)  # 2 silu(1)
        tensor([[1.4621]])
        """
        pairs = expand(rows, local_idx, weights, num_pairs, len(self.gate_up))
        return sum_pairs(_Mlp.apply(self, self.token, pairs.rows, pairs.ends), pairs)
