#!/usr/bin/env python3
"""Makes tests/golden/torch: small files of torch.save() with the layout that each engine writes.

  python tools/make_torch_fixtures.py          needs PyTorch; deterministic but for an id of the archive

The model has 4 layers, of which layer 0 is dense, and 6 experts in 8 slots; a token chooses 2. Of
SGLang's recorder (python/sglang/srt/eplb/expert_distribution.py) two ranks record a prefill and a
step that decodes; some tokens are of the other rank, thus -1. c2r/import/torch/readers_test.cc has
what must be read.
"""
import pathlib

import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "torch"
LAYERS, EXPERTS, SLOTS, WIDTH = 4, 6, 8, 8
MAP = torch.tensor([[(slot + layer) % EXPERTS for slot in range(SLOTS)] for layer in range(LAYERS)])


def experts_of(layer, token, rank, step):
    first = (layer + token + 2 * rank + step) % EXPERTS
    return [first, (first + 1 + token % 3) % EXPERTS]


def slot_of(layer, expert, token):
    """Odd tokens take the second replica, where there is one."""
    slots = [slot for slot in range(SLOTS) if MAP[layer, slot] == expert]
    return slots[-1] if token % 2 else slots[0]


def topk_ids(num_tokens, rank, step, own):
    """[layers, tokens, 8], as _DetailSinglePassGatherer fills it; `own` are the tokens of this rank."""
    ids = torch.full((LAYERS, num_tokens + 3, WIDTH), -1, dtype=torch.int32)
    for layer in range(1, LAYERS):
        for token in own:
            for k, expert in enumerate(experts_of(layer, token, rank, step)):
                ids[layer, token, k] = slot_of(layer, expert, token)
    return ids[:, :num_tokens, :].clone().cpu()


def slot_counts(ids):
    counts = torch.zeros((LAYERS, SLOTS), dtype=torch.int32)
    for layer in range(LAYERS):
        for slot in ids[layer].flatten().tolist():
            if slot >= 0:
                counts[layer, slot] += 1
    return counts


def record(rank, step, num_tokens, own, lengths, mode, key="primary"):
    ids = topk_ids(num_tokens, rank, step, own)
    deepep = {"layer_id": 1, "num_tokens_per_rank": [1, 2], "num_tokens_per_rdma_rank": [3],
              "num_tokens_per_expert": [1] * SLOTS}
    return dict(forward_pass_id=step, rank=rank, gatherer_key=key,
                input_ids=list(range(100, 100 + num_tokens)), positions=list(range(num_tokens)),
                extend_seq_lens=lengths, forward_mode=mode, topk_ids_of_layer=ids, misc_objects=[deepep],
                global_physical_count=slot_counts(ids))


def records_of(rank):
    """5 tokens of two requests, of which rank 0 has the first 3 and rank 1 the others, then a decode."""
    return [record(rank, 1, 5, [0, 1, 2] if rank == 0 else [3, 4], [4, 1], 1),
            record(rank, 2, 2, [0] if rank == 0 else [1], None, 2),
            record(rank, 2, 2, [0, 1], None, 2, key="draft"),
            record(rank, 3, 0, [], None, 4)]


def per_pass(records):
    keys = ["forward_pass_id", "rank", "gatherer_key", "global_physical_count"]
    return [{key: one[key] for key in keys} for one in records]


def logical_count():
    """[steps, layers, experts]: the steps above, and one that the circular buffer never used."""
    count = torch.zeros((3, LAYERS, EXPERTS), dtype=torch.int32)
    for rank in (0, 1):
        for at, one in enumerate(records_of(rank)[:2]):
            for layer in range(LAYERS):
                for slot in range(SLOTS):
                    count[at, layer, MAP[layer, slot]] += one["global_physical_count"][layer, slot]
    return count


def save_flame(folder):
    for layer in (2, 10):
        for name, num_tokens in (("0-0.pt", 3), ("1-0.pt", 2)):
            logits = torch.tensor([[-((e * 7 + t * 5 + layer) % 11) / 4 for e in range(EXPERTS)]
                                   for t in range(num_tokens)])
            scores, indices = torch.topk(logits.softmax(-1), 2)
            path = folder / str(layer) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save((scores.half(), indices), path)


def odd_recordings(records):
    """The recording of rank 0 with its ids as other kinds of tensors, by name."""
    lengths = [one["topk_ids_of_layer"].shape[1] for one in records]
    shared = torch.cat([one["topk_ids_of_layer"] for one in records], 1).split(lengths, 1)
    kinds = {
        "strided": lambda ids, at: ids.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "shared": lambda ids, at: shared[at],
        "int64": lambda ids, at: ids.long(),
        "float": lambda ids, at: ids.float(),
        "bfloat16": lambda ids, at: ids.bfloat16(),
        "bool": lambda ids, at: ids >= 0,
        "complex": lambda ids, at: ids.to(torch.complex64),
        "quantized": lambda ids, at: torch.quantize_per_tensor(ids.float(), 1, 0, torch.qint32),
        "sparse": lambda ids, at: ids.to_sparse(),
        "meta": lambda ids, at: ids.to("meta"),
        "negated": lambda ids, at: torch._neg_view(ids),
        "expanded": lambda ids, at: ids[:, :1, :1].expand(LAYERS, 99, 99),
    }
    return {name: [{**one, "topk_ids_of_layer": kind(one["topk_ids_of_layer"], at)} for at, one in enumerate(records)]
            for name, kind in kinds.items()}


def save_odd(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in odd_recordings(records_of(0)[:2]).items():
        torch.save(dict(records=records, last_physical_to_logical_map=MAP), folder / f"{name}.pt")
    torch.save({"logical_count": logical_count().float()}, folder / "counts_of_floats.pt")
    # As if the tensors had been on a GPU.
    torch.serialization.register_package(0, lambda storage: "cuda:0", lambda storage, location: None)
    torch.save(dict(records=records_of(0)[:2], last_physical_to_logical_map=MAP), folder / "cuda.pt")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for rank in (0, 1):
        records = records_of(rank)
        torch.save(dict(records=records, last_physical_to_logical_map=MAP), FOLDER / f"per_token_{rank}.pt")
        torch.save(dict(records=per_pass(records), last_physical_to_logical_map=MAP), FOLDER / f"per_pass_{rank}.pt")
    # As without data parallel attention: rank 1 saw what rank 0 saw.
    torch.save(dict(records=[{**one, "rank": 1} for one in records_of(0)], last_physical_to_logical_map=MAP),
               FOLDER / "per_token_same_1.pt")
    torch.save(dict(rank=0, logical_count=logical_count(), average_utilization_rate_over_window=None),
               FOLDER / "stat.pt")
    torch.save({"physical_to_logical_map": MAP}, FOLDER / "map.pt")
    # Not contiguous, and with elements in front of it in its storage.
    torch.save({"physical_to_logical_map": torch.cat([MAP[:1], MAP]).t().contiguous().t()[1:]}, FOLDER / "view.pt")
    save_flame(FOLDER / "flame")
    save_odd(FOLDER / "odd")
    torch.save({"w": torch.zeros(2)}, FOLDER / "old.pt", _use_new_zipfile_serialization=False)
    for layer in range(1, LAYERS):
        print(layer, "rank 0:", [experts_of(layer, t, 0, 1) for t in (0, 1, 2)], experts_of(layer, 0, 0, 2),
              "rank 1:", [experts_of(layer, t, 1, 1) for t in (3, 4)], experts_of(layer, 1, 1, 2))
    print(logical_count().sum(0).tolist())


if __name__ == "__main__":
    main()
