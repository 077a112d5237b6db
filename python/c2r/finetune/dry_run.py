"""What a run would be, from a config alone: names and shapes of parameters, lists, and memory per GPU.

Memory of a rank, estimated from shapes (P parameters, of which a layer has L and its experts X):

    state     16 P / fsdp            weights, gradients and two moments of Adam, float32
    gathered  fsdp > 1: 2 * 4 (L - X + X / ep) + 4 (embedding and head)     two layers, one of them fetched ahead
    kept      hidden states of tokens: of every layer 2 hidden; of the layer that is recomputed also what attention,
              router and top_k experts keep: 2 (8 hidden + 3 top_k (hidden + width)), in bfloat16
    logits    tokens * vocabulary * (2 + 4 + 4)                              bfloat16, float32, and its gradient

Buffers of exchanges and what the allocator wastes come on top. The formula has not been compared with a GPU.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

import c2r.hf.llama_moe  # noqa: F401 - registers the model
from c2r.finetune.run import constrain
from c2r.finetune.settings import Settings
from c2r.hf.routers import find_routers

MICRO_BATCHES = {"qwen": 8, "llama": 4}  # of the paper's recipes, on 4 GPUs
SPREADS = ((1, 1), (4, 1), (4, 4), (8, 1), (8, 8))  # fsdp, ep
_GB = 1e9


class Sizes(NamedTuple):
    """Parameters, and what a token keeps."""

    all: int
    experts: int  # of all layers
    largest_layer: int
    largest_layer_experts: int
    outside: int  # of layers: embedding, head, last norm
    num_layers: int
    hidden: int
    width: int  # of an expert
    top_k: int
    vocabulary: int


def read_config(path: pathlib.Path) -> Any:
    """Of a folder, or of a config.json under any name."""
    if path.is_dir():
        return transformers.AutoConfig.from_pretrained(path)
    values, _ = transformers.PreTrainedConfig.get_config_dict(str(path))
    kind = values.pop("model_type", None)
    if kind is None:
        raise ValueError(f"{path}: has no model_type")
    values.pop("auto_map", None)
    return transformers.AutoConfig.for_model(kind, **values)


def model_on_meta(config: Any) -> nn.Module:
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def sizes_of(model: nn.Module) -> Sizes:
    layers: dict[str, list[int]] = {}
    outside = 0
    for name, parameter in model.named_parameters():
        layer = re.search(r"layers\.(\d+)\.", name)
        if layer is None:
            outside += parameter.numel()
            continue
        of_layer = layers.setdefault(layer[1], [0, 0])
        of_layer[0] += parameter.numel()
        of_layer[1] += parameter.numel() if ".experts." in name else 0
    largest = max(layers.values())
    router = find_routers(model)[0]
    experts = model.get_submodule(router.name.rsplit(".", 1)[0]).experts
    return Sizes(
        all=sum(all_of for all_of, _ in layers.values()) + outside, experts=sum(x for _, x in layers.values()),
        largest_layer=largest[0], largest_layer_experts=largest[1], outside=outside, num_layers=len(layers),
        hidden=model.config.hidden_size, width=experts.down_proj.shape[-1], top_k=router.top_k,
        vocabulary=model.config.vocab_size,
    )  # fmt: skip


def memory(sizes: Sizes, settings: Settings, fsdp: int, ep: int) -> dict[str, float]:
    """Bytes of a rank by what they hold, see above."""
    tokens = settings.micro_batch * settings.length
    gathered = 0
    if fsdp > 1:
        layer = sizes.largest_layer - sizes.largest_layer_experts + sizes.largest_layer_experts / ep
        if ep == fsdp:
            layer -= sizes.largest_layer_experts / ep  # they are not sharded further
        gathered = 8 * layer + 4 * sizes.outside
    of_layer = 2 * (8 * sizes.hidden + 3 * sizes.top_k * (sizes.hidden + sizes.width))
    kept = sizes.num_layers * 2 * sizes.hidden + of_layer
    if not settings.checkpointing:
        kept = sizes.num_layers * of_layer
    return {"state": 16 * sizes.all / fsdp, "gathered": gathered, "kept": tokens * kept,
            "logits": tokens * sizes.vocabulary * 10}  # fmt: skip


def _parameter_table(model: nn.Module) -> list[str]:
    rows: dict[tuple[str, str], list[int]] = {}
    for name, parameter in model.named_parameters():
        shape = " x ".join(map(str, parameter.shape))
        row = rows.setdefault((re.sub(r"layers\.\d+\.", "layers.N.", name), shape), [0, 0])
        row[0] += 1
        row[1] += parameter.numel()
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {shape:>22}  x {count:<3} {numel / 1e6:>10.2f} M"
            for (name, shape), (count, numel) in rows.items()]  # fmt: skip


def _memory_table(sizes: Sizes, settings_of: Callable[[str], Settings]) -> list[str]:
    lines = ["recipe  micro_batch  fsdp  ep      state   gathered       kept     logits      total  GB of a rank"]
    for recipe, of_paper in MICRO_BATCHES.items():
        settings = settings_of(recipe)
        for micro_batch in sorted({settings.micro_batch, of_paper}):
            for fsdp, ep in SPREADS:
                parts = memory(sizes, dataclasses.replace(settings, micro_batch=micro_batch), fsdp, ep)
                numbers = "".join(f"{value / _GB:>11.2f}" for value in [*parts.values(), sum(parts.values())])
                lines.append(f"{recipe:<7} {micro_batch:>11}  {fsdp:>4} {ep:>3}{numbers}")
    return lines


def dry_run(path: pathlib.Path, lists: pathlib.Path | None, top_t: Any, settings_of: Callable[[str], Settings]) -> str:
    """The report. settings_of: the settings of each recipe, by its name."""
    config = read_config(path)
    model = model_on_meta(config)
    sizes = sizes_of(model)
    routers = find_routers(model)
    head = (f"{type(model).__name__}: {sizes.all / 1e9:.3f} G parameters, {sizes.experts / 1e9:.3f} G of them in experts;"
            f" {len(routers)} layers of {routers[0].num_experts} experts, top-{routers[0].top_k}")  # fmt: skip
    said = constrain(model, lists, top_t)
    return "\n".join([head, said, "", *_parameter_table(model), "", *_memory_table(sizes, settings_of)])
