"""The MoE layer, expert-parallel: route, dispatch, compute, combine, with chunks that travel while others compute."""

import functools
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from c2r.torch.deferred import DeferredExperts
from c2r.torch.dispatch import (
    advance_combine,
    advance_dispatch,
    finish_combine,
    finish_dispatch,
    start_combine,
    start_dispatch,
)
from c2r.torch.exchange import gather
from c2r.torch.experts import expert_mlp
from c2r.torch.handle import COPIES, Handle, make_handles
from c2r.torch.placement import Groups, contiguous, make_groups, make_placement
from c2r.torch.recompute import decide
from c2r.torch.routing import Policy, Routing, select

# (rows, local_idx, weights, num_pairs) -> [num_rows, hidden]
ExpertCompute = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def run_chunks(
    x: Tensor, topk_weights: Tensor, handles: list[Handle], make_compute: Callable[[], ExpertCompute]
) -> Tensor:
    """dispatch, compute and combine for every chunk: others travel while one is computed. Collective.

    x [num_tokens, hidden], topk_weights [num_tokens, top_k], handles as make_handles() returns them.
    make_compute: called once, when rows are on their way and before they are waited for: what DeferredExperts needs.
    Returns [num_tokens, hidden].

    In step n chunk n sets off, chunk n - 1 is forwarded by its relays (per-node mode only) and the chunk before is
    computed. Autograd runs the same program backwards, so that gradients of one chunk travel while those of another
    are computed.
    """
    num_legs = len(handles[0].legs)
    sending, returning = [], []
    for step in range(len(handles) + num_legs):
        if step < len(handles):
            tokens = slice(handles[step].first_token, handles[step].first_token + handles[step].num_tokens)
            sending.append(start_dispatch(x[tokens], topk_weights[tokens], handles[step]))
        if num_legs > 1 and 1 <= step <= len(handles):
            sending[step - 1] = advance_dispatch(sending[step - 1], handles[step - 1])
        chunk = step - num_legs
        if chunk == 0:
            compute = make_compute()
        if chunk >= 0:
            rows, local_idx, weights = finish_dispatch(sending[chunk], handles[chunk])
            out = compute(rows, local_idx, weights, handles[chunk].num_pairs)
            returning.append(start_combine(out, handles[chunk]))
            if num_legs > 1 and chunk >= 1:
                returning[chunk - 1] = advance_combine(returning[chunk - 1], handles[chunk - 1])
    if num_legs > 1:
        returning[-1] = advance_combine(returning[-1], handles[-1])
    return torch.cat([finish_combine(*chunk) for chunk in zip(returning, handles)])


class MoE(nn.Module):
    """A layer of SwiGLU experts that are spread over ranks.

    out = sum over the chosen experts e of weight_e * down_e(silu(gate_e(x)) * up_e(x)), the weights and choices by
    `policy` from the logits of a linear router. Every rank calls it with its own tokens, ranks without tokens too.

    hidden, intermediate: widths of a token and inside an expert.
    policy: the routing, with or without collaborator lists.
    placement: the rank of each expert, integers [num_experts], equally many on each rank; contiguous if None. A plan's
        slots become one by rank_of_expert(). Replicas and uneven ranks are refused.
    group: the process group of expert parallelism, the default group if None, or make_groups().
    copies: "per-rank", "per-expert" or "per-node" (which needs make_groups()), as in make_handle().
    num_chunks: parts that tokens are cut into, so that one travels while another is computed.
    layer: the layer's name in traffic().

    Parameters: router [num_experts, hidden], the same on every rank, whose gradient the caller sums over ranks as of
    any data-parallel parameter; gate_up [experts_per_rank, 2 * intermediate, hidden] and down [experts_per_rank,
    hidden, intermediate], this rank's experts by slot, whose gradients are complete: they hold all ranks' tokens.

    Under activation checkpointing pass context_fn=reuse_routing.

    Raises ValueError as Policy, make_placement() and make_handle().

    >>> moe = MoE(8, 16, Policy(num_experts=4, top_k=2, collaborators=[[1], [0], [3], [2]]))
    >>> out, routing = moe(torch.randn(5, 8))
    >>> out.shape, sorted(routing.topk_idx[0].tolist()) in ([0, 1], [2, 3])
    (torch.Size([5, 8]), True)
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        policy: Policy,
        placement=None,
        group: dist.ProcessGroup | Groups | None = None,
        copies: str = "per-rank",
        num_chunks: int = 1,
        layer: str = "",
    ) -> None:
        super().__init__()
        if copies not in COPIES:
            raise ValueError(f"copies is '{copies}', expected one of {', '.join(COPIES)}")
        if num_chunks < 1:
            raise ValueError(f"num_chunks is {num_chunks}, expected at least 1")
        self.policy, self.copies, self.num_chunks, self.layer = policy, copies, num_chunks, layer
        self.groups = group if isinstance(group, Groups) else make_groups(group)
        ep_size = self.groups.ep_size
        placement = contiguous(policy.num_experts, ep_size) if placement is None else placement
        self.placement = make_placement(placement, ep_size)
        if len(self.placement.rank_of_expert) != policy.num_experts:
            raise ValueError(f"the placement is for {len(self.placement.rank_of_expert)} experts, but the policy has "
                             f"{policy.num_experts}")  # fmt: skip
        self.register_buffer("_rank_of_expert", self.placement.rank_of_expert, persistent=False)
        self.register_buffer("_slot_of_expert", self.placement.slot_of_expert, persistent=False)
        self.register_buffer("_mask", policy.mask(), persistent=False)
        local = self.placement.experts_per_rank
        self.router = nn.Parameter(torch.empty(policy.num_experts, hidden))
        self.gate_up = nn.Parameter(torch.empty(local, 2 * intermediate, hidden))
        self.down = nn.Parameter(torch.empty(local, hidden, intermediate))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(width of the input), as nn.Linear. The caller makes routers equal on all ranks."""
        for weight in (self.router, self.gate_up, self.down):
            nn.init.uniform_(weight, -1 / math.sqrt(weight.shape[-1]), 1 / math.sqrt(weight.shape[-1]))

    @property
    def experts(self) -> list[int]:
        """The experts of this rank, in the order of gate_up and down."""
        return self.placement.experts_of(self.groups.rank)

    def full_state_dict(self) -> dict[str, Tensor]:
        """The router and the matrices of all experts, in the order of experts: what one process would hold. Collective.

        router [num_experts, hidden], gate_up [num_experts, 2 * intermediate, hidden], down [num_experts, hidden,
        intermediate]. Independent of the placement. Every rank sends its experts to every other.
        """
        state = {"router": self.router.detach().clone()}
        order = torch.cat([torch.tensor(self.placement.experts_of(rank)) for rank in range(self.groups.ep_size)])
        order = order.argsort().to(self.router.device)
        for name in ("gate_up", "down"):
            parts = gather(getattr(self, name).detach(), self.groups.ranks)
            state[name] = parts.flatten(0, 1)[order]
        return state

    @torch.no_grad()
    def load_full_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copies the router and this rank's experts out of a full_state_dict() made under any placement.

        Raises ValueError for missing and unknown names and other shapes.
        """
        if set(state) != {"router", "gate_up", "down"}:
            raise ValueError(f"the state has {', '.join(sorted(state))}, expected down, gate_up, router")
        for name, parameter in self.named_parameters():
            shape = [self.policy.num_experts, *parameter.shape[1:]]
            if list(state[name].shape) != shape:
                raise ValueError(f"{name} has shape {list(state[name].shape)}, expected {shape}")
        self.router.copy_(state["router"])
        self.gate_up.copy_(state["gate_up"][self.experts])
        self.down.copy_(state["down"][self.experts])

    def _decide(self, logits: Tensor) -> list[Handle]:
        topk_idx = select(logits, self._mask, self.policy.top_k)
        placement = self.placement._replace(rank_of_expert=self._rank_of_expert, slot_of_expert=self._slot_of_expert)
        return make_handles(topk_idx, placement, self.groups, self.copies, self.num_chunks, self.layer)

    def _make_compute(self) -> ExpertCompute:
        if torch.compiler.is_compiling():
            return functools.partial(expert_mlp, gate_up=self.gate_up, down=self.down)
        return DeferredExperts(self.gate_up, self.down)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [..., hidden] -> the same shape, and the routing of its tokens in order, for switch_loss() and others."""
        tokens = x.reshape(-1, x.shape[-1])
        logits = tokens @ self.router.T
        handles = decide(lambda: self._decide(logits))
        topk_idx = torch.cat([handle.topk_idx for handle in handles])
        routing = Routing(logits, topk_idx, self.policy.weigh(logits, topk_idx))
        return run_chunks(tokens, routing.topk_weights, handles, self._make_compute).view_as(x), routing
