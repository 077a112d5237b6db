"""Collaboration-constrained routing in Hugging Face models, by a forward hook on each router.

    constraint = constrain(model, "plan.json")          # or lists, or nothing: what the model's config says
    trainer.train()                                     # every choice obeys the lists
    model.save_pretrained("constrained")                # the config keeps them: top_t, collaborative_list
    constraint.remove()                                 # the model as it was before

Nothing of transformers is copied or replaced. The hook takes a router's logits, chooses as c2r.torch.select() does and
weighs as the family does; so it works with every experts implementation, torch.compile, gradient checkpointing, FSDP2,
DDP, expert parallelism and the Trainer. Plain transformers does not know the keys: a constrained checkpoint that is
loaded without constrain() routes freely, and says nothing.
"""

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from c2r.hf.lists import keep_in_config, lists_of_layers, masks_of, read_lists, top_t_of_config
from c2r.hf.routers import Router, device_of, find_routers
from c2r.torch.recompute import decide, is_in_backward
from c2r.torch.routing import Routing, select, switch_loss

_CONFIG_KEYS = ("top_t", "collaborative_list")
CONSTRAINED: weakref.WeakKeyDictionary[nn.Module, "Constraint"] = weakref.WeakKeyDictionary()


def balance_loss(logits: Sequence[Tensor], topk_idx: Sequence[Tensor], attention_mask: Tensor | None = None) -> Tensor:
    """transformers' load_balancing_loss_func, but of the experts that were really chosen. A float32 scalar.

    top_k times c2r.torch.switch_loss() of the tokens of all layers together. transformers chooses again from the
    logits, which a constraint makes wrong.

    logits: of each layer, [num_tokens, num_experts]; topk_idx: [num_tokens, top_k], without -1.
    attention_mask: [batch, length], 0 for padding, whose tokens are left out.
    Source: Fedus et al. (arXiv 2101.03961), equations 4 to 6.

    >>> logits, topk_idx = torch.zeros(2, 4), torch.tensor([[0, 1], [2, 3]])
    >>> float(balance_loss([logits], [topk_idx]))
    2.0
    """
    device = logits[0].device
    of_all = Routing(
        torch.cat([layer.to(device) for layer in logits]),
        torch.cat([layer.to(device) for layer in topk_idx]),
        torch.empty(0, device=device),  # the loss is not of the weights
    )
    is_token = None if attention_mask is None else attention_mask.reshape(-1).repeat(len(logits))
    return topk_idx[0].shape[1] * switch_loss(of_all, is_token)


class Constraint:
    """Routing of one model that obeys collaborator lists, until remove() is called.

    lists: [num_moe_layers][num_experts][T of the layer]
    topk_idx: what each router chose in the last forward pass, [num_tokens, top_k]; None before the first
    """

    def __init__(
        self, model: nn.Module, lists: list[list[list[int]]], routers: list[Router], called: nn.Module
    ) -> None:
        """called: the module whose forward pass is called, the model or a wrapper of it."""
        self.model, self.lists, self.routers = model, lists, routers
        self.topk_idx: list[Tensor | None] = [None] * len(routers)
        self._logits: list[Tensor | None] = [None] * len(routers)  # of a forward pass that runs now
        self._masks = [
            mask.to(device_of(router)) for mask, router in zip(masks_of(lists, routers), routers, strict=True)
        ]
        self._before = {key: getattr(model.config, key, None) for key in _CONFIG_KEYS}
        self._coefficient = getattr(model, "router_aux_loss_coef", None)
        for router, mask in zip(routers, self._masks, strict=True):
            self._give_mask(router, mask)
        # prepend: whoever records a router's output records the constrained one.
        self._hooks = [
            router.module.register_forward_hook(self._hook_of(at), prepend=True) for at, router in enumerate(routers)
        ]
        self._hooks.append(called.register_forward_hook(self._after_forward, with_kwargs=True))
        if self._coefficient is not None:
            model.router_aux_loss_coef = 0.0  # _after_forward() adds the loss of the real choice
        keep_in_config(model, lists)
        CONSTRAINED[model] = self

    def remove(self) -> None:
        """Takes the constraint off: the model and its config are as before. Twice is as good as once."""
        for hook in self._hooks:
            hook.remove()
        if not self._hooks:
            return
        self._hooks = []
        for router in self.routers:
            self._give_mask(router, None)
        CONSTRAINED.pop(self.model, None)
        for key, value in self._before.items():
            delattr(self.model.config, key) if value is None else setattr(self.model.config, key, value)
        if self._coefficient is not None:
            self.model.router_aux_loss_coef = self._coefficient

    def check(self) -> None:
        """Raises RuntimeError, naming the router, if one has not routed since constrain().

        Called after each forward pass that is not compiled. A hook is lost where a block is replaced as a whole, as by
        kernels of a hub.
        """
        for router, idx in zip(self.routers, self.topk_idx, strict=True):
            if idx is None:
                raise RuntimeError(f"the router {router.name} was not called in the forward pass, so its layer routes "
                                   "without the constraint: load the model without use_kernels and without other "
                                   "replacements of its MoE blocks")  # fmt: skip

    @staticmethod
    def _give_mask(router: Router, mask: Tensor | None) -> None:
        """To a router whose own balance loss asks what a token may choose."""
        if hasattr(router.module, "collaborators"):
            router.module.collaborators = mask

    def _hook_of(self, at: int):
        router = self.routers[at]

        def constrained(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor, Tensor]):
            logits = output[0]
            if self._masks[at].device != logits.device:
                self._masks[at] = self._masks[at].to(logits.device)
                self._give_mask(router, self._masks[at])
            # A recomputation of this layer weighs what the forward pass has chosen, whatever its logits are now.
            topk_idx = decide(lambda: select(logits, self._masks[at], router.top_k), is_required=False)
            self.topk_idx[at] = topk_idx
            if not torch.compiler.is_compiling() and not is_in_backward():
                self._logits[at] = logits
            return logits, router.weights(logits, topk_idx), topk_idx

        return constrained

    def _after_forward(self, called: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        recorded, self._logits = self._logits, [None] * len(self.routers)  # not to keep their graph
        if not torch.compiler.is_compiling():
            self.check()
        theirs = getattr(output, "aux_loss", None)
        if theirs is None or getattr(self.model, "balances_real_choice", False):  # c2r.hf.llama_moe
            return output
        given = inspect.signature(called.forward).bind_partial(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        logits = getattr(output, "router_logits", None)
        if logits is not None:
            output.aux_loss = balance_loss(logits, self.topk_idx, given.get("attention_mask"))
            if output.loss is not None and self._coefficient:
                output.loss = output.loss + self._coefficient * output.aux_loss.to(output.loss.device)
            return output
        # The forward pass of TRL's trainers: it returns no logits, and has added its loss by the config's coefficient.
        if any(layer is None for layer in recorded):
            raise RuntimeError("a forward pass returns a balance loss of an unconstrained choice and no router logits; "
                               "set output_router_logits to False, or do not compile the model")  # fmt: skip
        output.aux_loss = balance_loss(recorded, self.topk_idx, given.get("attention_mask"))
        if output.loss is not None:
            difference = output.aux_loss - theirs.to(output.aux_loss.device)
            coefficient = getattr(self.model.config, "router_aux_loss_coef", 0.0)
            output.loss = output.loss + coefficient * difference.to(output.loss.device)
        return output


def constrain(model: nn.Module, lists: Any = None, top_t: Any = None) -> Constraint:
    """Constrains the routing of a model of transformers: a token's best expert is free, the others are the best among
    the first T collaborators of that expert (C2R, arXiv 2504.01337). Equal logits go to the lower expert.

    model: Qwen2-MoE, Qwen3-MoE, OLMoE, Mixtral, gpt-oss, or LLaMA-MoE (c2r.hf.llama_moe); or peft's wrapper of it,
        which is what has to be constrained where there is one.
    lists: the path of a plan or of what `c2r collaborators` writes; a c2r.Plan; integers [num_moe_layers, num_experts,
        at least T], best first, or such rows of which each layer has another length; None: what the model's config
        says, for a checkpoint that was saved with a constraint.
    top_t: T, of all layers or of each; None: as long as the lists are.

    Writes the config keys top_t and collaborative_list, which save_pretrained() keeps and `c2r score` reads. The
    balance loss of the model, if it has one, is that of the real choice from now on.

    Returns the Constraint; its remove() undoes everything.
    Raises ValueError, naming the router, for a family that c2r does not know and for lists that do not fit; and for a
    model that is constrained already.

    >>> import transformers
    >>> config = transformers.OlmoeConfig(hidden_size=8, intermediate_size=4, num_hidden_layers=1, vocab_size=11,
    ...     num_attention_heads=1, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2)
    >>> model = transformers.AutoModelForCausalLM.from_config(config)
    >>> constraint = constrain(model, [[[1], [0], [3], [2]]])
    >>> _ = model(torch.tensor([[1, 2, 3]]))
    >>> constraint.topk_idx[0].sort(-1).values.unique(dim=0).tolist() in ([[0, 1]], [[2, 3]], [[0, 1], [2, 3]])
    True
    >>> constraint.remove()
    """
    called = model
    if callable(getattr(called, "get_base_model", None)):  # of peft, which calls the forward() of its model by itself
        model = called.get_base_model()
    if model in CONSTRAINED:
        raise ValueError("the model is constrained already: call remove() of its constraint first")
    routers = find_routers(model)
    given = read_lists(lists, model.config)
    if top_t is None and lists is None:
        top_t = top_t_of_config(given, model.config)
    return Constraint(model, lists_of_layers(given, routers, top_t), routers, called)
