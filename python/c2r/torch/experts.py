"""Expert compute: the rows of each expert, put together, times that expert's matrices.

`loop` is the definition; `grouped` is PyTorch's grouped product and gives the same without a synchronisation with the
host. Rows of expert e are [ends[e - 1], ends[e]), ends[-1] being 0.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from c2r.torch.rows import pick, row_map, take_rows, weighted_sum_rows

# (rows [num_rows, k], weight [num_experts, n, k], ends int32 [num_experts]) -> [num_rows, n]
GroupedMatmul = Callable[[Tensor, Tensor, Tensor], Tensor]


def loop(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """One product an expert, in a Python loop over experts. The sizes come to the host."""
    groups = rows.split(torch.diff(ends, prepend=ends.new_zeros(1)).tolist())
    return torch.cat([group @ matrix.T for group, matrix in zip(groups, weight)])


def grouped(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """torch.nn.functional.grouped_mm: nothing comes to the host. float32, bfloat16 and float16; the sizes in bytes of k
    and n are multiples of 16."""
    return F.grouped_mm(rows, weight.mT, offs=ends)


def grouped_matmul_for(weight: Tensor) -> GroupedMatmul:
    """`grouped` where it applies to matrices [num_experts, n, k], else `loop`."""
    is_aligned = all(size * weight.element_size() % 16 == 0 for size in weight.shape[1:])
    return grouped if is_aligned and weight.dtype in (torch.float32, torch.bfloat16, torch.float16) else loop


# (rows [num_pairs, hidden], expert int64 [num_pairs], ends) -> [num_pairs, hidden]; rows are ordered by expert
PairCompute = Callable[[Tensor, Tensor, Tensor], Tensor]


def sum_over_experts(
    rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int, num_experts: int, compute: PairCompute
) -> Tensor:
    """For each row, the sum over its local experts e of weight * expert e of the row.

    rows [num_rows, hidden], local_idx int16 and weights float32 [num_rows, width] as dispatch() returns them; num_pairs:
    how many entries of local_idx are not -1; num_experts: of this rank. `compute` gets a row for each pair of a row and
    an expert. Returns [num_rows, hidden] of rows' type; each sum runs in the order of experts, in float32 or more, and
    is rounded once.

    >>> x, ids, weights = torch.ones(1, 1), torch.tensor([[1, 0]]).short(), torch.tensor([[2.0, 3.0]])
    >>> sum_over_experts(x, ids, weights, 2, 2, lambda rows, expert, ends: rows * (expert + 10).unsqueeze(1))
    tensor([[52.]])
    """
    ids = local_idx.flatten().long()
    ordered, order = torch.where(ids >= 0, ids, num_experts).sort(stable=True)
    pairs = order[:num_pairs]  # flat index into local_idx, by expert
    ends = torch.searchsorted(ordered, torch.arange(num_experts, device=ids.device), right=True, out_int32=True)
    place = torch.full_like(order, -1).scatter(0, pairs, torch.arange(num_pairs, device=ids.device))
    source = row_map(pairs // max(local_idx.shape[1], 1), rows.shape[0])
    out = compute(take_rows(rows, source), ordered[:num_pairs], ends)
    return weighted_sum_rows(out, pick(weights, pairs, place.view_as(local_idx)), source)


def expert_mlp(
    rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int, gate_up: Tensor, down: Tensor
) -> Tensor:
    """sum_over_experts() of SwiGLU experts: down_e(silu(gate_e(row)) * up_e(row)).

    gate_up [num_experts, 2 * intermediate, hidden], gate first; down [num_experts, hidden, intermediate].

    >>> x, gate_up, down = torch.ones(1, 1), torch.ones(1, 2, 1), torch.ones(1, 1, 1)
    >>> expert_mlp(x, torch.zeros(1, 1).short(), torch.full((1, 1), 2.0), 1, gate_up, down)  # 2 silu(1)
    tensor([[1.4621]])
    """
    matmul = grouped_matmul_for(gate_up) if grouped_matmul_for(down) is grouped else loop

    def compute(x: Tensor, expert: Tensor, ends: Tensor) -> Tensor:
        gate, up = matmul(x, gate_up, ends).chunk(2, dim=-1)
        return matmul(F.silu(gate) * up, down, ends)

    return sum_over_experts(rows, local_idx, weights, num_pairs, gate_up.shape[0], compute)
