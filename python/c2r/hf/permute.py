"""Experts of a model in the order of a placement: what engines and transformers need, which split them contiguously."""

from typing import Any

import torch
from torch import Tensor, nn

from c2r.hf.constrain import CONSTRAINED
from c2r.hf.routers import Router, find_routers


def _order(slots: Any, router: Router) -> Tensor:
    """The expert that comes to each place, [num_experts]. Raises ValueError unless every expert has one slot."""
    order = torch.as_tensor(slots).reshape(-1).long()
    if sorted(order.tolist()) != list(range(router.num_experts)):
        raise ValueError(f"{router.name}: the plan has {len(order)} slots for {router.num_experts} experts; only a plan "
                         "without replicas and empty slots is a permutation")  # fmt: skip
    return order


def _parameters(model: nn.Module, router: Router) -> list[nn.Parameter]:
    """Those whose first dimension counts the experts: of the experts themselves, and the last of the router."""
    block = model.get_submodule(router.name.rsplit(".", 1)[0])
    experts = getattr(block, "experts", None)
    if not isinstance(experts, nn.Module) or isinstance(experts, nn.ModuleList):
        raise ValueError(f"{router.name}: beside it are no experts in one module, as transformers 5 has them")  # noqa: TRY004
    found = [*experts.parameters(), *router.module.parameters()]
    last = getattr(router.module, "permuted", None)  # of a router of several parameters, of which one counts experts
    if last is not None:
        found = [*experts.parameters(), *last()]
    for parameter in found:
        if type(parameter.data) is not Tensor or len(parameter) != router.num_experts:
            raise ValueError(f"{router.name}: a parameter of its block is sharded or counts no experts; permute a whole "
                             "model, before it is distributed")  # fmt: skip
    return found


def _relabel(model: nn.Module, at: int, order: Tensor) -> None:
    """Collaborator lists of the config follow their experts, and name them by their new ids."""
    lists = getattr(model.config, "collaborative_list", None)
    if lists is None:
        return
    place = torch.argsort(order).tolist()
    lists[at] = [[place[other] for other in lists[at][expert]] for expert in order.tolist()]


@torch.no_grad()
def permute(model: nn.Module, plan: Any) -> None:
    """Puts the experts of every MoE layer in the order of a plan's slots, in place: experts, router rows and biases,
    and the collaborator lists of the config. The model computes the same as before, up to the order of sums.

    plan: a c2r.Plan, or for each layer the experts in slots, integers [ep_size, slots_per_rank].

    transformers' expert parallelism gives rank r the r-th part of the experts: then it has the plan's placement.
    Raises ValueError for replicas, for a plan of another model, for a sharded model, and while constrain() is in
    force: permute first, then constrain(model), with the lists of the config or a plan of the permuted model.

    >>> import transformers
    >>> config = transformers.OlmoeConfig(hidden_size=8, intermediate_size=4, num_hidden_layers=1, vocab_size=11,
    ...     num_attention_heads=1, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2)
    >>> model = transformers.AutoModelForCausalLM.from_config(config)
    >>> before = model.model.layers[0].mlp.gate.weight.clone()
    >>> permute(model, [[[2, 0], [3, 1]]])  # rank 0 gets experts 2 and 0
    >>> torch.equal(model.model.layers[0].mlp.gate.weight, before[[2, 0, 3, 1]])
    True
    """
    routers = find_routers(model)
    slots = plan.slots() if callable(getattr(plan, "slots", None)) else plan
    if len(slots) != len(routers):
        raise ValueError(f"the plan has {len(slots)} layers, but {len(routers)} layers have experts")
    if model in CONSTRAINED:
        raise ValueError("the model is constrained: call remove() of the constraint, permute, then constrain(model)")
    orders = [_order(layer, router) for layer, router in zip(slots, routers, strict=True)]
    parameters = [_parameters(model, router) for router in routers]
    for at, order in enumerate(orders):
        for parameter in parameters[at]:
            parameter.copy_(parameter.index_select(0, order.to(parameter.device)))
        _relabel(model, at, order)
