"""Slow, obvious references: the constrained choice token by token, the MoE layer expert by expert, the copies counted."""

import torch
import torch.nn.functional as F


def choose(logits: list[float], lists: list[list[int]] | None, top_k: int) -> list[int]:
    """One token's experts by PAPER's rule: the best freely, the others among its collaborators; ties to the lower."""
    best = max(range(len(logits)), key=lambda e: (logits[e], -e))
    allowed = range(len(logits)) if lists is None else lists[best]
    rest = sorted((e for e in allowed if e not in (best, -1)), key=lambda e: (-logits[e], e))
    chosen = [best, *rest][:top_k]
    return chosen + [-1] * (top_k - len(chosen))


def swiglu(x, gate_up, down):
    """One expert: x [num_rows, hidden], gate_up [2 * intermediate, hidden], down [hidden, intermediate]."""
    gate, up = (x @ gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ down.T


def moe(x, topk_idx, topk_weights, gate_up, down):
    """The layer in one process: a loop over tokens and choices. gate_up, down: of all experts."""
    out = []
    for t in range(len(x)):
        total = torch.zeros_like(x[t])
        for expert, weight in zip(topk_idx[t].tolist(), topk_weights[t]):
            if expert >= 0:
                total = total + weight * swiglu(x[t : t + 1], gate_up[expert], down[expert])[0]
        out.append(total)
    return torch.stack(out) if out else x * 1.0


def copies_to(topk_idx, rank_of_expert, home: int, copies: str, ranks_per_node: int = 1) -> dict[int, int]:
    """Rows that travel to each rank, relays included, for the tokens of rank `home`; by (sender, receiver)."""
    sent = {}

    def send(src, dst):
        if src != dst:
            sent[src, dst] = sent.get((src, dst), 0) + 1

    for row in topk_idx.tolist():
        ranks = [int(rank_of_expert[e]) for e in row if e >= 0]
        if copies == "per-expert":
            for rank in ranks:
                send(home, rank)
        elif copies == "per-rank":
            for rank in sorted(set(ranks)):
                send(home, rank)
        else:
            for node in sorted({rank // ranks_per_node for rank in ranks}):
                relay = node * ranks_per_node + home % ranks_per_node
                send(home, relay)
                for rank in sorted({rank for rank in ranks if rank // ranks_per_node == node}):
                    send(relay, rank)
    return sent
