"""LLaMA-MoE (Zhu et al., arXiv 2406.16554) as a model of transformers 5, whose releases its published code does not run on.

    import c2r.hf.llama_moe                            # registers the model type "llama_moe"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")

Attention, norms, positions and experts are transformers' Mixtral's; the gate, its noise and its balance loss are here.
Checkpoints have the published names and stay as they are, byte for byte, when they are loaded and saved.
"""

import types
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers import initialization as init
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder

from c2r.torch.routing import Routing, cv_squared, importance_loss, select, weigh

_REQUIRED = {
    "hidden_act": "silu", "gate_type": "TopKBalancedNoisyGate", "gate_network": "mlp", "gate_use_softmax": True,
    "calculator_type": "UniversalCalculator", "multiply_gate_scores": True, "add_weight_norm": False,
}  # fmt: skip


@strict
class LlamaMoeConfig(PreTrainedConfig):
    """The keys of the published config.json.

    size_experts: the width of each expert, [num_hidden_layers][num_experts]; None: equal parts of intermediate_size.
        The widths of one layer must be equal.
    score_scale_factor: what the weights are multiplied by, one number or one for each layer.
    gate_balance_loss_weight: what the balance loss is multiplied by when it is added to the loss, in training.

    Raises ValueError for another gate or calculator, unequal widths and numbers that do not fit, naming the key.
    """

    model_type = "llama_moe"
    attribute_map = {  # noqa: RUF012 - as transformers has it
        "num_local_experts": "num_experts", "num_experts_per_tok": "num_selects",
        "router_aux_loss_coef": "gate_balance_loss_weight",
    }  # fmt: skip
    base_model_tp_plan = mixtral.MixtralConfig.base_model_tp_plan
    base_model_pp_plan = mixtral.MixtralConfig.base_model_pp_plan
    base_model_ep_plan = mixtral.MixtralConfig.base_model_ep_plan
    default_theta = 10000.0
    sliding_window = None  # Mixtral's attention asks for it

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    attention_dropout: float | int = 0.0
    rope_parameters: dict | None = None
    num_experts: int = 16
    num_selects: int = 4
    size_experts: list | None = None
    gate_type: str = "TopKBalancedNoisyGate"
    gate_network: str = "mlp"
    gate_use_softmax: bool = True
    gate_use_balance: bool = True
    gate_balance_loss_weight: float | int = 1e-2
    gate_add_noise: bool = True
    gate_noise_epsilon: float | int = 1e-2
    calculator_type: str = "UniversalCalculator"
    multiply_gate_scores: bool = True
    score_scale_factor: float | int | list = 1.0
    add_weight_norm: bool = False
    output_router_logits: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        for key, only in _REQUIRED.items():
            if getattr(self, key) != only:
                raise ValueError(f"llama_moe: {key} is {getattr(self, key)!r}, but only {only!r} is supported")
        if not 1 <= self.num_selects <= self.num_experts:
            raise ValueError(f"llama_moe: num_selects is {self.num_selects}, but must be in [1, {self.num_experts}]")
        if isinstance(self.score_scale_factor, list) and len(self.score_scale_factor) != self.num_hidden_layers:
            raise ValueError(f"llama_moe: score_scale_factor has {len(self.score_scale_factor)} numbers, but there are "
                             f"{self.num_hidden_layers} layers")  # fmt: skip
        if self.size_experts is None:
            if self.intermediate_size % self.num_experts:
                raise ValueError(f"llama_moe: {self.num_experts} experts cannot share intermediate_size "
                                 f"{self.intermediate_size} evenly; give size_experts")  # fmt: skip
            width = self.intermediate_size // self.num_experts
            self.size_experts = [[width] * self.num_experts for _ in range(self.num_hidden_layers)]
        self._check_sizes()

    def _check_sizes(self) -> None:
        if len(self.size_experts) != self.num_hidden_layers:
            raise ValueError(f"llama_moe: size_experts has {len(self.size_experts)} layers, but num_hidden_layers is "
                             f"{self.num_hidden_layers}")  # fmt: skip
        for layer, sizes in enumerate(self.size_experts):
            if not isinstance(sizes, list) or len(sizes) != self.num_experts:
                raise ValueError(f"llama_moe: layer {layer} of size_experts must have {self.num_experts} widths")
            if len(set(sizes)) != 1 or not isinstance(sizes[0], int) or sizes[0] < 1:
                raise ValueError(f"llama_moe: layer {layer} of size_experts is {sizes}, but only equal widths of at least "
                                 "1 are supported")  # fmt: skip


def _load(logits: Tensor, noisy: Tensor, std: Tensor, topk_idx: Tensor, allowed: Tensor | None) -> Tensor:
    """The smooth load of each expert, [num_experts]: the sum over tokens of P(it is chosen | fresh noise on it alone).

    A chosen expert has to beat the best that was left, another one the worst that was chosen. Under a constraint the
    best expert of a token is taken as given: what it does not allow is never chosen, and is not left either.

    logits, noisy, std: [num_tokens, num_experts]; allowed: bool, the same shape; None allows all.
    Source: Shazeer et al. (arXiv 1701.06538), appendix A.
    """
    experts = torch.arange(logits.shape[1], device=logits.device)
    is_chosen = (topk_idx.unsqueeze(-1) == experts).any(1)
    is_left = ~is_chosen if allowed is None else ~is_chosen & allowed
    best_left = noisy.masked_fill(~is_left, -torch.inf).amax(1, keepdim=True)
    worst_chosen = noisy.gather(1, topk_idx[:, -1:])
    is_alone = is_chosen & best_left.isinf()  # nothing to beat; without the mask its gradient would be 0 * inf
    to_beat = torch.where(is_chosen, best_left, worst_chosen).masked_fill(is_alone, 0.0)
    probability = torch.special.ndtr((logits - to_beat) / std).masked_fill(is_alone, 1.0)
    return (probability * (is_chosen | is_left)).sum(0)


class LlamaMoeRouter(nn.Module):
    """Linear, tanh, Linear; softmax over the logits of the top_k chosen, times score_scale_factor.

    Hidden states -> logits [N, E], weights float32 [N, k], indices [N, k], as the routers of transformers give them. In
    training the logits carry Gaussian noise, whose size is learned.
    """

    def __init__(self, config: LlamaMoeConfig, layer_idx: int) -> None:
        super().__init__()
        hidden, self.num_experts, self.top_k = config.hidden_size, config.num_experts, config.num_selects
        scale = config.score_scale_factor
        self.score_scale = float(scale[layer_idx] if isinstance(scale, list) else scale)
        self.noise_epsilon = config.gate_noise_epsilon
        self.gate_network = nn.Sequential(
            nn.Linear(hidden, self.num_experts, bias=False),
            nn.Tanh(),
            nn.Linear(self.num_experts, self.num_experts, bias=False),
        )
        self.weight_noise = nn.Linear(hidden, self.num_experts, bias=False) if config.gate_add_noise else None
        self.adds_noise = True  # False: in training as elsewhere
        self.collaborators: Tensor | None = None  # bool [E, E], of c2r.hf.constrain(), for the balance loss

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.gate_network(hidden_states)
        if self._is_noisy():
            logits = logits.float()
            logits = logits + torch.randn_like(logits) * self._noise_std(hidden_states)
        topk_idx = select(logits, None, self.top_k)
        return logits, weigh(logits, topk_idx, "softmax-over-chosen", scale=self.score_scale), topk_idx

    def balance_loss(self, hidden_states: Tensor, logits: Tensor, weights: Tensor, topk_idx: Tensor) -> Tensor:
        """cv^2 of the importance, of the weights that were given; in training plus cv^2 of the smooth load.

        logits, weights, topk_idx: what the router returned for hidden_states, under whatever constraint. A float32
        scalar. Source: Shazeer et al. (arXiv 1701.06538), equations 6 to 11.
        """
        loss = importance_loss(Routing(logits, topk_idx, weights))
        if not self._is_noisy() or self.top_k == self.num_experts:
            return loss
        allowed = None if self.collaborators is None else self.collaborators[topk_idx[:, 0]]
        clean = self.gate_network(hidden_states).float()
        return loss + cv_squared(_load(clean, logits, self._noise_std(hidden_states), topk_idx, allowed))

    def permuted(self) -> list[nn.Parameter]:
        """Parameters of which row e belongs to expert e."""
        noise = [] if self.weight_noise is None else [self.weight_noise.weight]
        return [self.gate_network[2].weight, *noise]

    def _is_noisy(self) -> bool:
        return self.training and self.adds_noise and self.weight_noise is not None

    def _noise_std(self, hidden_states: Tensor) -> Tensor:
        return F.softplus(self.weight_noise(hidden_states).float()) + self.noise_epsilon


class LlamaMoeExperts(mixtral.MixtralExperts):
    """Mixtral's experts, of the width of this layer."""

    def __init__(self, config: LlamaMoeConfig, layer_idx: int) -> None:
        sizes = types.SimpleNamespace(
            num_local_experts=config.num_experts,
            hidden_size=config.hidden_size,
            intermediate_size=config.size_experts[layer_idx][0],
            hidden_act=config.hidden_act,
        )
        super().__init__(sizes)
        self.config = config


class LlamaMoeBlock(nn.Module):
    """Gate and experts. balance_loss: of the last forward pass, a float32 scalar."""

    def __init__(self, config: LlamaMoeConfig, layer_idx: int) -> None:
        super().__init__()
        self.gate = LlamaMoeRouter(config, layer_idx)
        self.experts = LlamaMoeExperts(config, layer_idx)
        self.balance_loss: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        logits, weights, topk_idx = self.gate(rows)
        self.balance_loss = self.gate.balance_loss(rows, logits, weights, topk_idx)
        return self.experts(rows, topk_idx, weights).view_as(hidden_states)


class LlamaMoeDecoderLayer(mixtral.MixtralDecoderLayer):
    def __init__(self, config: LlamaMoeConfig, layer_idx: int) -> None:
        GradientCheckpointingLayer.__init__(self)  # Mixtral's would allocate experts of its own
        self.hidden_size = config.hidden_size
        self.self_attn = mixtral.MixtralAttention(config, layer_idx)
        self.mlp = LlamaMoeBlock(config, layer_idx)
        self.input_layernorm = mixtral.MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = mixtral.MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class LlamaMoePreTrainedModel(mixtral.MixtralPreTrainedModel):
    config: LlamaMoeConfig
    config_class = LlamaMoeConfig
    _no_split_modules = ["LlamaMoeDecoderLayer"]  # noqa: RUF012
    _can_record_outputs = {  # noqa: RUF012
        "router_logits": OutputRecorder(LlamaMoeRouter, index=0),
        "hidden_states": LlamaMoeDecoderLayer,
        "attentions": mixtral.MixtralAttention,
    }

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers looks for the decorator in this file; Mixtral's experts have it

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LlamaMoeRouter) and module.weight_noise is not None:
            init.zeros_(module.weight_noise.weight)  # as the published code does


class LlamaMoeModel(LlamaMoePreTrainedModel, mixtral.MixtralModel):
    def __init__(self, config: LlamaMoeConfig) -> None:
        mixtral.MixtralPreTrainedModel.__init__(self, config)  # MixtralModel's would build Mixtral's layers
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([LlamaMoeDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)])
        self.norm = mixtral.MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = mixtral.MixtralRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()


class LlamaMoeForCausalLM(LlamaMoePreTrainedModel, mixtral.MixtralForCausalLM):
    """Its aux_loss is the sum of the balance losses of its layers, of the choice that was made, padding included as in
    the published code. In training with labels, it is added to the loss if gate_use_balance says so.
    """

    balances_real_choice = True  # c2r.hf.constrain() leaves the loss alone

    def __init__(self, config: LlamaMoeConfig) -> None:
        mixtral.MixtralPreTrainedModel.__init__(self, config)
        self.model = LlamaMoeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, position_ids: Tensor | None = None,
        cache: Any = None, inputs_embeds: Tensor | None = None, labels: Tensor | None = None,
        use_cache: bool | None = None, output_router_logits: bool | None = None, logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:  # fmt: skip
        wants_logits = self.config.output_router_logits if output_router_logits is None else output_router_logits
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, cache=cache,
            inputs_embeds=inputs_embeds, use_cache=use_cache, output_router_logits=wants_logits, **kwargs,
        )  # fmt: skip
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        aux_loss = torch.stack([layer.mlp.balance_loss.to(logits.device) for layer in self.model.layers]).sum()
        loss = None if labels is None else self.loss_function(logits, labels, self.vocab_size, **kwargs)
        if loss is not None and self.training and self.config.gate_use_balance:
            loss = loss + self.config.gate_balance_loss_weight * aux_loss
        return MoeCausalLMOutputWithPast(
            loss=loss, aux_loss=aux_loss, logits=logits, cache=outputs.cache, hidden_states=outputs.hidden_states,
            attentions=outputs.attentions, router_logits=outputs.router_logits,
        )  # fmt: skip


class _Stack(ConversionOps):
    """Matrices of each expert, of one or more kinds -> one parameter [num_experts, rows of all kinds, columns]."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        kinds = [torch.stack(input_dict[pattern]) for pattern in source_patterns]
        return {target_patterns[0]: kinds[0] if len(kinds) == 1 else torch.cat(kinds, dim=1)}

    @property
    def reverse_op(self) -> ConversionOps:
        return _Unstack()


class _Unstack(ConversionOps):
    """The inverse of _Stack. transformers' own SplitModulelist needs a dot after the number, which is last here."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str],
        full_layer_name: str = "", **kwargs: Any,
    ) -> dict[str, Tensor]:  # fmt: skip
        (value,) = input_dict.values()
        stacked = value[0] if isinstance(value, list) else value
        prefix = full_layer_name.removesuffix(target_patterns[0])
        return {
            prefix + pattern.replace("*", str(expert)): matrix.contiguous()
            for pattern, kind in zip(target_patterns, stacked.chunk(len(target_patterns), dim=1), strict=True)
            for expert, matrix in enumerate(kind)
        }

    @property
    def reverse_op(self) -> ConversionOps:
        return _Stack()


def _register() -> None:
    published = ".mlp.calculator.experts.weight_{}.*"
    register_checkpoint_conversion_mapping(
        LlamaMoeConfig.model_type,
        [
            WeightConverter(
                [published.format("gate"), published.format("up")], ".mlp.experts.gate_up_proj", [_Stack()]
            ),
            WeightConverter([published.format("down")], ".mlp.experts.down_proj", [_Stack()]),
        ],
        overwrite=True,
    )
    AutoConfig.register(LlamaMoeConfig.model_type, LlamaMoeConfig, exist_ok=True)
    AutoModelForCausalLM.register(LlamaMoeConfig, LlamaMoeForCausalLM, exist_ok=True)


_register()
