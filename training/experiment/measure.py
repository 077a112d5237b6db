"""Loss of every held-out document, and the traffic of its tokens, of one model under one rule."""

import pathlib
from typing import Any

import c2r
import torch
from c2r.hf.routers import find_routers
from torch import nn

from training.experiment.texts import Document
from training.measure import Engine


@torch.no_grad()
def losses_and_trace(
    model: nn.Module, documents: list[Document], trace: pathlib.Path, batch: int = 8
) -> tuple[list[float], float]:
    """Nats per token of each document, in their order, and distinct experts per layer of a batch of `batch` tokens
    that come from different documents, as in decoding. Writes the choices to `trace`.
    """
    routers = find_routers(model)
    header = c2r.TraceHeader(num_experts=routers[0].num_experts, top_k=routers[0].top_k,
                             layer_indices=[router.layer_index for router in routers])  # fmt: skip
    writer = c2r.TraceWriter(trace, header, has_weights=False)
    chosen: list[torch.Tensor] = []
    handles = [router.module.register_forward_hook(lambda module, inputs, output: chosen.append(output[2]) or None)
               for router in routers]  # fmt: skip
    losses, distinct = [], []
    model.eval()
    for at in range(0, len(documents), batch):
        ids = torch.tensor([document.ids for document in documents[at : at + batch]])
        chosen.clear()
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        losses += loss.double().mean(1).tolist()
        layers = [topk_idx.view(*ids.shape, -1) for topk_idx in chosen]
        if len(ids) == batch:
            distinct += [len(layer[:, t].unique()) for layer in layers for t in range(0, ids.shape[1], 16)]
        for sequence in range(len(ids)):
            writer.start_sequence()
            for layer, topk_idx in enumerate(layers):
                writer.append(layer, topk_idx[sequence].to(torch.int32).contiguous().numpy(), None, str(trace))
    for handle in handles:
        handle.remove()
    writer.finish()
    return losses, sum(distinct) / max(len(distinct), 1)


def traffic(program: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """Copies per token and imbalance of trace.safetensors at 2, 4 and 8 ranks: the steps of c2r simulate, means over
    layers; placements are fitted on even documents and counted on odd ones. "one slot": with a replica on each rank.
    """
    engine = Engine(program, folder)
    found = {}
    for ranks in (2, 4, 8):
        steps = engine.steps(ranks, 0)
        steps["one slot"] = engine.steps(ranks, 1)["placement"]
        found[str(ranks)] = steps
    return found
