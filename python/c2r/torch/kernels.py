"""c2r's own kernels for operators of c2r.torch on NVIDIA GPUs, where the package was built with nvcc.

    c2r::select                       the constraint: a warp for each token, instead of a sort of all experts
    c2r::sum_rows, weighted_sum_rows  sums of bfloat16 rows without a copy of them in float32
    c2r::weighted_sum_rows_backward   both gradients in one pass over the rows

Names, shapes and gradients of the operators stay the same. Choices are those of PyTorch's kernels; sums have the same
order, and each product and each addition is rounded to float32. float64, more than 512 experts and devices on which
the kernels cannot run, for a reason that why_no_kernels() gives, are left to PyTorch.

The extension module c2r._c2r_cuda knows nothing of PyTorch: it gets tensors by DLPack, and the address of a stream.
"""

import functools
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from c2r.torch import routing
from c2r.torch import rows as row_operators

try:
    from c2r import _c2r_cuda
except ImportError as error:
    _c2r_cuda, _import_error = None, str(error)

MAX_EXPERTS = 512
TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Kernels:
    """The kernels of an extension module, as implementations of the operators.

    module: has _choose, _sum_by_source and _sum_by_source_gradients, for tensors of one type of device.
    why_not: says of a device why the kernels cannot run there, or None.
    """

    def __init__(self, module: ModuleType, why_not: Callable[[torch.device], str | None]) -> None:
        self._module, self._why_not = module, why_not

    def register(self, device_type: str) -> None:
        """Makes these the operators' kernels on a type of device."""
        routing._select.register_kernel(device_type)(self.select)
        row_operators._sum.register_kernel(device_type)(self.sum_rows)
        row_operators._weighted_sum.register_kernel(device_type)(self.weighted_sum_rows)
        row_operators._weighted_sum_backward.register_kernel(device_type)(self.weighted_sum_rows_backward)
        if device_type not in routing._devices_with_kernel:
            routing._devices_with_kernel.append(device_type)

    def _can_run(self, x: Tensor, weights: Tensor | None = None) -> bool:
        has_type = x.dtype in TYPES and (weights is None or weights.dtype == torch.float32)
        return has_type and x.numel() > 0 and self._why_not(x.device) is None

    def _start(self, name: str, *tensors: Tensor | None) -> None:
        """Starts a kernel behind what the current stream of the tensors' device has to do. What it writes is contiguous."""
        kernel = getattr(self._module, name)
        shared = [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]
        device = tensors[0].device
        if device.type != "cuda":
            kernel(*shared, 0)
            return
        with torch.cuda.device(device):
            kernel(*shared, torch.cuda.current_stream().cuda_stream)

    def select(self, logits: Tensor, mask: Tensor | None, top_k: int) -> Tensor:
        if not self._can_run(logits) or logits.shape[1] > MAX_EXPERTS:
            return routing._select_by_torch(logits, mask, top_k).contiguous()
        topk_idx = logits.new_empty(len(logits), top_k, dtype=torch.int64)
        self._start("_choose", logits, mask, topk_idx)
        return topk_idx

    def _sum(self, rows: Tensor, weights: Tensor | None, order: Tensor, offsets: Tensor) -> Tensor:
        sums = rows.new_empty(len(offsets) - 1, rows.shape[1])
        self._start("_sum_by_source", rows, weights, order, offsets, sums)
        return sums

    def sum_rows(self, rows: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        if not self._can_run(rows):
            return row_operators._sum_by_torch(rows, index, order, offsets)
        return self._sum(rows, None, order, offsets)

    def weighted_sum_rows(self, rows: Tensor, weights: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        if not self._can_run(rows, weights):
            return row_operators._weighted_sum_by_torch(rows, weights, index, order, offsets)
        return self._sum(rows, weights, order, offsets)

    def weighted_sum_rows_backward(
        self, gradient: Tensor, rows: Tensor, weights: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not self._can_run(rows, weights) or gradient.dtype != rows.dtype:
            return row_operators._weighted_sum_backward_by_torch(gradient, rows, weights, index)
        of_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
        of_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
        self._start("_sum_by_source_gradients", gradient, rows, weights, index, of_rows, of_weights)
        return of_rows, of_weights


@functools.cache
def _why_not(device: torch.device) -> str | None:
    if _c2r_cuda is None:
        return f"there is no extension module for NVIDIA GPUs, which is built where nvcc is found: {_import_error}"
    reason = _c2r_cuda.why_not(torch.cuda.current_device() if device.index is None else device.index)
    return f"{reason} (c2r's kernels are for sm_{_c2r_cuda.architectures})" if reason else None


def why_no_kernels(device: torch.device | str = "cuda") -> str | None:
    """Why c2r's own kernels do not run on a device, so that PyTorch's do; None if they run.

    >>> why_no_kernels("cpu")
    'they are for NVIDIA GPUs, not for a device of type cpu'
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"they are for NVIDIA GPUs, not for a device of type {device.type}"
    if _c2r_cuda is not None and not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU"
    return _why_not(device)


if _c2r_cuda is not None:
    Kernels(_c2r_cuda, _why_not).register("cuda")
