"""c2r for Hugging Face transformers (5.23 and newer).

constrain        collaboration-constrained routing in a model, by hooks
profile          a routing trace of what a model chooses for texts
permute          experts in the order of a placement
llama_moe        LLaMA-MoE as a model of transformers 5; import c2r.hf.llama_moe registers it
expert_parallel  one row for each token and rank, as an ep_implementation
"""

from c2r.hf.constrain import Constraint, balance_loss, constrain
from c2r.hf.permute import permute
from c2r.hf.profile import profile

__all__ = ["Constraint", "balance_loss", "constrain", "permute", "profile", "register"]


def register(num_chunks: int = 1, ranks_per_node: int | None = None) -> None:
    """See c2r.hf.expert_parallel.register()."""
    from c2r.hf.expert_parallel import register as register_expert_parallel

    register_expert_parallel(num_chunks, ranks_per_node)
