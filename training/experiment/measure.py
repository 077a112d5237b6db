"""Loss of every held-out document, and what its tokens' choices of experts cost, of one model under one rule."""

import json
import pathlib
from typing import Any

import c2r
import torch
from c2r.finetune.trainer import LOG, read_log
from c2r.hf.routers import find_routers
from torch import nn

from training.experiment.texts import Document
from training.measure import Engine

SHAPE = ("--hidden", "2048", "--intermediate", "1408")  # of a layer of Qwen1.5-MoE, for predicted times
LINKS = {"NVLink": 600e9, "200 Gb/s": 25e9}  # bytes per second of each of four A100s, of 312 TFLOP/s


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


def costs(program: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """All that follows from the trace and the log of a run, so that it can be computed anew without training."""
    engine = Engine(program, folder)
    log = read_log(folder / LOG)
    return {
        "traffic": traffic(engine), "layer_time_s": layer_times(engine), **specialization(engine),
        "training_loss": [[line["step"], round(line["loss"], 5)] for line in log],
    }  # fmt: skip


def traffic(engine: Engine) -> dict[str, Any]:
    """Copies per token and imbalance of trace.safetensors at 2, 4 and 8 ranks: the steps of c2r simulate, means over
    layers; placements are fitted on even documents and counted on odd ones. "one slot": with a replica on each rank.
    """
    found = {}
    for ranks in (2, 4, 8):
        steps = engine.steps(ranks, 0)
        # At full effort the searches with replicas take longer than the training; they find hardly fewer copies.
        steps["one slot"] = engine.steps(ranks, 1, effort=0.2)["replicas"]
        found[str(ranks)] = steps
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def layer_times(engine: Engine) -> dict[str, dict[str, float]]:
    """Predicted seconds of a layer of SHAPE that routes as trace.safetensors, on 4 ranks, for one batch of the odd
    documents: the mean over layers, by link and step. "overlap" is the placement with communication and experts
    overlapped.
    """
    engine.run("plan", "trace.safetensors", "--cluster", "1x4", "--fit", "even", "-o", "plan.json")
    found = {}
    for name, bandwidth in LINKS.items():
        link = {"bandwidth_bytes_per_s": bandwidth, "latency_s": 2e-6}
        cluster = {"num_nodes": 1, "ranks_per_node": 4, "intra_node": link, "inter_node": link}
        (engine.folder / "cluster.json").write_text(json.dumps(cluster | {"device_flop_per_s": 312e12}))
        times = {}
        for how in ("overlapped", "added"):
            said = engine.run("simulate", "plan.json", "trace.safetensors", "--on", "odd", "--cluster", "cluster.json",
                              *SHAPE, "--overlap", how, "--json")  # fmt: skip
            of_steps = {step["step"]: _mean(step["predicted_layer_time_s"]) for step in json.loads(said)["steps"]}
            times = {"overlap": of_steps["placement"]} if how == "overlapped" else of_steps | times
        found[name] = {step: float(f"{value:.5g}") for step, value in times.items()}
    return found


def specialization(engine: Engine) -> dict[str, Any]:
    """With how many others an expert effectively works, by layer, and how often each two experts of the second layer
    were chosen together: of experts a < b, row by row.
    """
    analysis = json.loads(engine.run("analyze", "trace.safetensors", "--heat-map", "none", "--json"))
    of_layers = [layer["collaborators"]["effective_collaborators"] for layer in analysis["layers"]]
    counts = c2r.count_collaboration(c2r.Trace(engine.folder / "trace.safetensors")).coactivation(1)
    pairs = [int(counts[a, b]) for a in range(len(counts)) for b in range(a + 1, len(counts))]
    return {"effective_collaborators": [round(value, 3) for value in of_layers], "pairs_of_second_layer": pairs}
