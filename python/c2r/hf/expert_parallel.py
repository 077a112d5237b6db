"""Expert parallelism in transformers (5.23 and newer) that sends a token once to each rank that holds its experts.

    c2r.hf.expert_parallel.register()
    config = DistributedConfig(fsdp_size=4, ep_size=4, ep_implementation="c2r")
    model = AutoModelForCausalLM.from_pretrained(path, distributed_config=config)

transformers gives each rank equally many experts, in ascending order; a plan's placement enters as a permutation of
experts and router rows in the checkpoint. Under activation checkpointing pass
{"use_reentrant": False, "context_fn": c2r.torch.reuse_routing} to activation_checkpointing_enable().
"""

import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.utils.hooks import RemovableHandle
from transformers.distributed.expert_parallel import EPImplementation, EPImplementationInterface

from c2r.torch.deferred import DeferredExperts
from c2r.torch.experts import expand, sum_pairs
from c2r.torch.handle import Handle, make_handles
from c2r.torch.moe import ExpertCompute, run_chunks
from c2r.torch.placement import Groups, contiguous, make_groups, make_placement
from c2r.torch.recompute import decide
from c2r.torch.routing import NO_EXPERT

NAMES = {"c2r": "per-rank", "c2r_per_expert": "per-expert", "c2r_per_node": "per-node"}


# Which tokens of the batch that a model runs now are no padding, bool [num_tokens]; None: all, or it is not known.
_IS_TOKEN: contextvars.ContextVar[Tensor | None] = contextvars.ContextVar("is_token", default=None)


class C2rExpertParallel(EPImplementation):
    """transformers' EPImplementation over c2r.torch; one for each layer's experts.

    Ranks of a tensor-parallel group hold the same batch: each sends its slice of it, as AllToAllEP does.
    """

    def __init__(
        self,
        experts,
        ep_mesh,
        tp_mesh,
        *,
        copies: str,
        num_chunks: int,
        numbers: Iterator[int],
        groups_of: Callable[[dist.ProcessGroup], Groups],
    ) -> None:
        super().__init__(experts, ep_mesh, tp_mesh)
        self.experts, self.copies, self.num_chunks = experts, copies, num_chunks
        self.layer = f"experts {next(numbers)}"
        self.groups = groups_of(ep_mesh.get_group())
        ep_size = self.groups.ep_size
        self.placement = make_placement(contiguous(self.num_local_experts * ep_size, ep_size), ep_size)

    def __call__(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden_states [num_tokens, hidden], the others [num_tokens, top_k] -> [num_tokens, hidden]."""
        shape = hidden_states.shape
        is_token = decide(lambda: _IS_TOKEN.get(), is_required=False)
        if is_token is not None and len(is_token) == len(top_k_index):
            top_k_index = torch.where(is_token.unsqueeze(1), top_k_index, NO_EXPERT)
        if self.tp_mesh.size() > 1:
            hidden_states, top_k_index, top_k_weights = (
                # Each takes its slice; the gradient gathers the slices.
                DTensor.from_local(x, self.tp_mesh, [Replicate()], run_check=False)
                .redistribute(self.tp_mesh, [Shard(0)])
                .to_local()
                for x in (hidden_states, top_k_index, top_k_weights)
            )
        out = run_chunks(hidden_states, top_k_weights, self._handles(top_k_index), self._make_compute)
        if self.tp_mesh.size() == 1:
            return out
        slices = DTensor.from_local(out.contiguous(), self.tp_mesh, [Shard(0)], shape=shape, stride=(shape[1], 1))
        return slices.full_tensor()

    def _handles(self, topk_idx: Tensor) -> list[Handle]:
        if self.placement.rank_of_expert.device != topk_idx.device:
            self.placement = self.placement._replace(
                rank_of_expert=self.placement.rank_of_expert.to(topk_idx.device),
                slot_of_expert=self.placement.slot_of_expert.to(topk_idx.device),
            )
        handles = decide(
            lambda: make_handles(topk_idx, self.placement, self.groups, self.copies, self.num_chunks, self.layer)
        )
        decided = torch.cat([handle.topk_idx for handle in handles])
        # Weights come from outside, and would be those of other experts.
        if decided is not topk_idx and not torch.equal(decided, topk_idx):
            raise RuntimeError(f"{self.layer}: a recomputed router chose other experts than in the forward pass; make "
                               "the router deterministic, or do not checkpoint its layer")  # fmt: skip
        return handles

    def _make_compute(self) -> ExpertCompute:
        """transformers' experts; of its grouped products, which most families have, our form of the same products."""
        experts = self.experts
        is_plain = (
            getattr(getattr(experts, "config", None), "_experts_implementation", None) == "grouped_mm"
            and experts.has_gate
            and not (experts.has_bias or experts.is_transposed or experts.has_post_expert_norm)
            and not torch.is_autocast_enabled(experts.gate_up_proj.device.type)
        )
        if torch.compiler.is_compiling() or not is_plain:
            return self._compute
        return DeferredExperts(experts.gate_up_proj, experts.down_proj, experts._apply_gate)

    def _compute(self, rows: Tensor, local_idx: Tensor, weights: Tensor, num_pairs: int) -> Tensor:
        """transformers' own experts, each row for one expert with weight one."""
        pairs = expand(rows, local_idx, weights, num_pairs, self.num_local_experts)
        x, expert = pairs.rows, pairs.expert
        if num_pairs == 0:  # keep the parameters in the graph, so that FSDP reduces their gradients on every rank
            x, expert = x.sum(0, keepdim=True), expert.new_zeros(1)
        out = self.experts_forward(x, expert.unsqueeze(1), x.new_ones(len(x), 1))
        return sum_pairs(out[:num_pairs], pairs)


def register(num_chunks: int = 1, ranks_per_node: int | None = None) -> None:
    """Registers with transformers: ep_implementation="c2r", one row for each token and rank; "c2r_per_expert", one for
    each token and expert, the baseline with the same counters; and, if ranks_per_node is given, "c2r_per_node", one for
    each token and node, which a relay there forwards to ranks of its node.

    num_chunks: parts that a batch is cut into; one travels while another is computed.
    ranks_per_node: rank r is on node r // ranks_per_node. "c2r_per_node" needs an ep_size of all processes.

    Layers are named "experts 0", "experts 1", ... in c2r.torch.traffic(), in the order in which they are loaded since
    register() was called.
    """

    @functools.cache  # groups of nodes are made once, for all layers
    def groups_of_nodes(group: dist.ProcessGroup) -> Groups:
        return make_groups(group, ranks_per_node)

    for name, copies in NAMES.items():
        if copies == "per-node" and ranks_per_node is None:
            continue
        implementation = functools.partial(
            C2rExpertParallel,
            copies=copies,
            num_chunks=num_chunks,
            numbers=itertools.count(),
            groups_of=groups_of_nodes if copies == "per-node" else make_groups,
        )
        EPImplementationInterface.register(name, implementation)


def leave_out_padding(model: nn.Module) -> list[RemovableHandle]:
    """From now on padding is not sent to experts: tokens that the attention_mask [batch, length] of a forward pass hides.

    Routed experts give zeros for them. No other token sees that, and losses leave padding out. Returns handles whose
    remove() ends it.
    """

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        mask = kwargs.get("attention_mask")
        is_mask = isinstance(mask, Tensor) and mask.dim() == 2
        _IS_TOKEN.set(mask.reshape(-1).bool() if is_mask else None)

    def leave(*_) -> None:
        _IS_TOKEN.set(None)

    return [
        model.register_forward_pre_hook(enter, with_kwargs=True),
        model.register_forward_hook(leave, always_call=True),
    ]
