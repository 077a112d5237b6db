"""A token dispatcher for torchtitan 0.3 that sends a token once to each rank that holds its experts.

In a model's configuration, in place of AllToAllTokenDispatcher.Config:

    token_dispatcher=C2rTokenDispatcher.Config(num_experts=64, top_k=8)

torchtitan shards experts contiguously and equally; a plan's placement enters as a permutation of experts and router
rows. Under activation checkpointing a recomputed router has to choose as it did, as with torchtitan's own dispatchers.
"""

import dataclasses

import torch
from torch import Tensor
from torchtitan.models.common.token_dispatcher import BaseEPTokenDispatcher, LocalTokenDispatcher

from c2r.torch.dispatch import combine, dispatch
from c2r.torch.experts import Pairs, expand, sum_pairs
from c2r.torch.handle import Handle, make_handles
from c2r.torch.placement import contiguous, make_groups, make_placement


@dataclasses.dataclass(frozen=True)
class C2rDispatchMetadata:
    """What combine() needs of dispatch()."""

    handle: Handle
    pairs: Pairs


class C2rTokenDispatcher(BaseEPTokenDispatcher):
    """dispatch() and combine() of torchtitan's AllToAllTokenDispatcher with fewer rows; local without an EP mesh."""

    @dataclasses.dataclass(kw_only=True, slots=True)
    class Config(BaseEPTokenDispatcher.Config):
        """copies: "per-rank", or "per-expert" as torchtitan sends; layer: the name in c2r.torch.traffic()."""

        copies: str = "per-rank"
        layer: str = ""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.copies, self.layer = config.copies, config.layer

    def wire_meshes(self, *, ep_mesh) -> None:
        """Called by RoutedExperts.parallelize()."""
        super().wire_meshes(ep_mesh=ep_mesh)
        if ep_mesh is not None:
            self.groups = make_groups(ep_mesh.get_group())
            size = self.groups.ep_size
            self.placement = make_placement(contiguous(self.num_experts, size), size, ep_mesh.device_type)

    def dispatch(
        self,
        x_TD: Tensor,
        topk_scores_TK: Tensor,
        topk_expert_ids_TK: Tensor,
        num_local_tokens_per_expert_E: Tensor,
    ) -> tuple[Tensor, Tensor, object]:
        """x [num_tokens, hidden], scores and ids [num_tokens, top_k] -> rows by local expert, their numbers, metadata."""
        if self.ep_mesh is None:
            return LocalTokenDispatcher.dispatch(
                self, x_TD, topk_scores_TK, topk_expert_ids_TK, num_local_tokens_per_expert_E
            )
        (handle,) = make_handles(topk_expert_ids_TK, self.placement, self.groups, self.copies, layer=self.layer)
        received = dispatch(x_TD, topk_scores_TK, handle)
        pairs = expand(*received, handle.num_pairs, handle.experts_per_rank)
        num_tokens = torch.diff(pairs.ends, prepend=pairs.ends.new_zeros(1))
        return pairs.rows, num_tokens.to(num_local_tokens_per_expert_E.dtype), C2rDispatchMetadata(handle, pairs)

    def combine(self, routed_output_RD: Tensor, metadata: object, x_TD: Tensor) -> Tensor:
        """Outputs of the rows of dispatch() -> [num_tokens, hidden], weighted and summed."""
        if not isinstance(metadata, C2rDispatchMetadata):
            return LocalTokenDispatcher.combine(self, routed_output_RD, metadata, x_TD)
        return combine(sum_pairs(routed_output_RD, metadata.pairs), metadata.handle)
