"""Expert compute: the rows of each expert, put together, times that expert's matrices.

`loop` is the definition; `grouped` is PyTorch's grouped product and gives the same without a synchronisation with the
host. Rows of expert e are [ends[e - 1], ends[e]), ends[-1] being 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from c2r.torch.rows import RowMap, pick, row_map, take_rows, weighted_sum_rows

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


class Pairs(NamedTuple):
    """A row for each pair of a received row and one of its experts, ordered by expert, then by row."""

    rows: Tensor  # [num_pairs, hidden]
    expert: Tensor  # int64 [num_pairs], slot on this rank
    ends: Tensor  # int32 [num_experts], rows of expert e are [ends[e - 1], ends[e])
    weights: Tensor  # [num_pairs]
    source: RowMap  # from received rows to pairs


def expand(rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int, num_experts: int) -> Pairs:
    """The pairs of rows [num_rows, hidden], local_idx int16 and weights [num_rows, width] as dispatch() returns them.

    num_pairs: how many entries of local_idx are not -1; num_experts: of this rank.

    >>> pairs = expand(torch.tensor([[5.0], [6.0]]), torch.tensor([[1, 0], [0, -1]]).short(), torch.ones(2, 2), 3, 2)
    >>> pairs.rows.flatten().tolist(), pairs.expert.tolist(), pairs.ends.tolist()
    ([5.0, 6.0, 5.0], [0, 0, 1], [2, 3])
    """
    ids = local_idx.flatten().long()
    ordered, order = torch.where(ids >= 0, ids, num_experts).sort(stable=True)
    pairs = order[:num_pairs]  # flat index into local_idx
    ends = torch.searchsorted(ordered, torch.arange(num_experts, device=ids.device), right=True, out_int32=True)
    place = torch.full_like(order, -1).scatter(0, pairs, torch.arange(num_pairs, device=ids.device))
    source = row_map(pairs // max(local_idx.shape[1], 1), rows.shape[0])
    pair_weights = pick(weights, pairs, place.view_as(local_idx))
    return Pairs(take_rows(rows, source), ordered[:num_pairs], ends, pair_weights, source)


def sum_pairs(out: Tensor, pairs: Pairs) -> Tensor:
    """For each received row the sum over its pairs of weight * out [num_pairs, hidden]: what combine() brings back.

    Each sum runs in the order of experts, in float32 or more, and is rounded once to the type of `out`.
    """
    return weighted_sum_rows(out, pairs.weights, pairs.source)


def expert_mlp(
    rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int, gate_up: Tensor, down: Tensor
) -> Tensor:
    """For each row the sum over its experts e of weight * down_e(silu(gate_e(row)) * up_e(row)): expand() and sum_pairs().

    gate_up [num_experts, 2 * intermediate, hidden], gate first; down [num_experts, hidden, intermediate].

    >>> x, gate_up, down = torch.ones(1, 1), torch.ones(1, 2, 1), torch.ones(1, 1, 1)
    >>> expert_mlp(x, torch.zeros(1, 1).short(), torch.full((1, 1), 2.0), 1, gate_up, down)  # 2 silu(1)
    tensor([[1.4621]])
    """
    matmul = grouped_matmul_for(gate_up) if grouped_matmul_for(down) is grouped else loop

    pairs = expand(rows, local_idx, weights, num_pairs, gate_up.shape[0])
    gate, up = matmul(pairs.rows, gate_up, pairs.ends).chunk(2, dim=-1)
    return sum_pairs(matmul(F.silu(gate) * up, down, pairs.ends), pairs)
