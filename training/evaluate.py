"""Held-out loss and routing statistics of a model, and a sample of what it writes."""

import contextlib
import math

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Corpus, sequences
from training.model import Decoder, token_losses


@contextlib.contextmanager
def evaluation_mode(model: Decoder):
    """No noise in the gates, no gradients, no compilation; bf16 where there is a GPU."""
    device = model.embed_tokens.weight.device
    was_training = model.training
    model.eval()
    with (
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"),
    ):
        yield device
    model.train(was_training)


def add_coactivation(counts: Tensor, topk_idx: Tensor) -> None:
    """Adds to counts [num_experts, num_experts] the tokens that chose each pair; the diagonal is the load."""
    chosen = torch.zeros(len(topk_idx), len(counts), device=counts.device).scatter_(1, topk_idx, 1.0)
    with torch.autocast(counts.device.type, enabled=False):  # bf16 would round counts above 256
        counts += (chosen.T @ chosen).to(counts.dtype)  # exact: fewer than 2^24 tokens a batch


def routing_statistics(coactivation: Tensor) -> dict[str, list[float]]:
    """Expert imbalance, specialization and unused experts of each layer, as docs/metrics.md defines them.

    coactivation [num_layers, num_experts, num_experts].
    """
    load = coactivation.diagonal(dim1=1, dim2=2).double()
    pairs = coactivation.double() - torch.diag_embed(load)
    share = pairs / pairs.sum(-1, keepdim=True)  # NaN for an expert without partners, which is left out
    entropy = -torch.special.xlogy(share, share).sum(-1)
    specialization = (1 - entropy / math.log(coactivation.shape[1] - 1)).nanmean(-1)
    return {
        "expert_imbalance": (load.max(-1).values / load.mean(-1)).tolist(),
        "least_load": (load.min(-1).values / load.mean(-1)).tolist(),
        "specialization": specialization.tolist(),
        "unused_experts": (load == 0).sum(-1).tolist(),
    }


def evaluate(model: Decoder, corpus: Corpus, batch_sequences: int, max_batches: int | None = None) -> dict:
    """Mean loss in nats per token of each domain's held-out text, and routing over all of it.

    With `max_batches`, only that many batches of each domain.
    """
    config = model.config
    losses, coactivation = (
        {},
        torch.zeros(
            config.num_layers,
            config.num_experts,
            config.num_experts,
            dtype=torch.int64,
            device=model.embed_tokens.weight.device,
        ),
    )
    with evaluation_mode(model) as device:
        for domain in corpus.domains:
            rows = sequences(corpus.tokens[f"{domain}.held_out"], config.max_tokens)
            sums = []
            for batch in torch.from_numpy(rows.astype("int64")).split(batch_sequences)[:max_batches]:
                output = model(batch[:, :-1].to(device))
                sums.append(token_losses(output.logits, batch[:, 1:].to(device)).sum(dtype=torch.float64))
                for layer, routing in enumerate(output.routings):
                    add_coactivation(coactivation[layer], routing.topk_idx)
            num_tokens = config.max_tokens * len(rows[: max_batches and max_batches * batch_sequences])
            losses[domain] = float(sum(sums)) / num_tokens if sums else None
    return {"losses": losses} | (routing_statistics(coactivation.cpu()) if config.is_moe else {})


def write_on(model: Decoder, tokenizer: Tokenizer, prompt: str, num_tokens: int, temperature: float, seed: int) -> str:
    """`prompt` and what the model writes after it, until it ends the text."""
    tokens = tokenizer.encode(prompt).ids
    generator = torch.Generator().manual_seed(seed)
    with evaluation_mode(model) as device:
        for _ in range(num_tokens):
            context = torch.tensor([tokens[-model.config.max_tokens :]], device=device)
            probabilities = (model(context).logits[0, -1].float() / temperature).softmax(-1).cpu()
            tokens.append(int(torch.multinomial(probabilities, 1, generator=generator)))
            if tokens[-1] == 0:  # END_OF_TEXT
                break
    return tokenizer.decode(tokens)
