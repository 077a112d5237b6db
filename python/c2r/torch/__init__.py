"""Collaboration-constrained routing and expert parallelism in PyTorch, over torch.distributed.

    routing      which experts a token gets (select, weigh, Policy), and balance losses of the real choice
    placement    which rank holds which expert; process groups of nodes
    handle       who sends which row where, for one batch
    dispatch     rows to their experts' ranks and sums back, with gradients
    moe          the layer, in chunks that travel while others are computed
    deferred     experts whose weight gradients are computed while the gradients of rows travel
    recompute    activation checkpointing
    traffic      counted rows and bytes
    kernels      c2r's own kernels for some operators on NVIDIA GPUs, where the package was built with nvcc

All else is PyTorch: gloo on CPUs, NCCL on GPUs.
"""

from c2r.torch.dispatch import combine, dispatch
from c2r.torch.exchange import EXCHANGES
from c2r.torch.handle import Handle, make_handle, make_handles
from c2r.torch.kernels import why_no_kernels
from c2r.torch.moe import MoE, run_chunks
from c2r.torch.placement import Groups, Placement, contiguous, make_groups, make_placement, rank_of_expert
from c2r.torch.recompute import reuse_routing
from c2r.torch.routing import NO_EXPERT, Policy, Routing, collaborator_mask, importance_loss, select, switch_loss, weigh
from c2r.torch.traffic import Sent, reset_traffic, traffic

__all__ = [
    "EXCHANGES",
    "NO_EXPERT",
    "Groups",
    "Handle",
    "MoE",
    "Placement",
    "Policy",
    "Routing",
    "Sent",
    "collaborator_mask",
    "combine",
    "contiguous",
    "dispatch",
    "importance_loss",
    "make_groups",
    "make_handle",
    "make_handles",
    "make_placement",
    "rank_of_expert",
    "reset_traffic",
    "reuse_routing",
    "run_chunks",
    "select",
    "switch_loss",
    "traffic",
    "weigh",
    "why_no_kernels",
]
