"""Collaboration-constrained routing (C2R) in one file of NumPy: the method of the paper, small enough to read.

    python3 examples/nano_c2r.py

An MoE layer whose experts live on several ranks sends every token to the ranks of its experts. This program
measures which experts are chosen together (profile), makes each expert's list of collaborators (lists), lets the
router choose within those lists (route), puts experts that work together on one rank (place), and runs the layer
over four ranks that exchange rows (dispatch, experts, combine). It counts the rows on the way, and compares the
layer's output with that of the plain layer on one rank.

The method is from "Advancing MoE Efficiency: A Collaboration-Constrained Routing (C2R) Strategy for Better Expert
Parallelism Design" (arXiv 2504.01337). What the paper also does, and this file does not: training with the constraint.
Every function has the same meaning as the function of the package `c2r` that its first line names; a test compares
them. Shapes: N tokens, E experts, K chosen experts a token, H hidden values, R ranks.
"""

import itertools
from collections import namedtuple

import numpy as np

NUM_EXPERTS, TOP_K, HIDDEN, INTERMEDIATE, NUM_RANKS = 8, 3, 32, 64, 4

# ---------------------------------------------------------------------------------------------------------------
# A layer, and tokens whose choices have a structure
# ---------------------------------------------------------------------------------------------------------------

Layer = namedtuple("Layer", "gate gate_proj up_proj down_proj")  # [E, H], [E, I, H], [E, I, H], [E, H, I]


def make_layer(rng):
    """An MoE layer. Gate rows e and e + E / 2 resemble each other, so that those experts are often chosen together;
    they are not neighbours, so that ranks of neighbouring experts are a bad placement."""
    half = rng.normal(size=(NUM_EXPERTS // 2, HIDDEN))
    gate = np.concatenate([half, half]) + 0.6 * rng.normal(size=(NUM_EXPERTS, HIDDEN))
    shape = (NUM_EXPERTS, INTERMEDIATE, HIDDEN)
    gate_proj, up_proj = rng.normal(size=shape) / HIDDEN**0.5, rng.normal(size=shape) / HIDDEN**0.5
    down_proj = rng.normal(size=(NUM_EXPERTS, HIDDEN, INTERMEDIATE)) / INTERMEDIATE**0.5
    return Layer(gate, gate_proj, up_proj, down_proj)


def make_tokens(rng, num_tokens):
    """[N, H] hidden states."""
    return rng.normal(size=(num_tokens, HIDDEN))


def expert(layer, e, rows):
    """One expert, a SwiGLU MLP: down(silu(gate(x)) * up(x)). [M, H] -> [M, H]"""
    gate = rows @ layer.gate_proj[e].T
    return (gate / (1 + np.exp(-gate)) * (rows @ layer.up_proj[e].T)) @ layer.down_proj[e].T


# ---------------------------------------------------------------------------------------------------------------
# 1. Route: the router, and the constraint
# ---------------------------------------------------------------------------------------------------------------


def route(logits, top_k, lists=None):
    """c2r.route: which experts a token goes to, and their weights.

    Without lists: the K largest logits. With lists [E, T] (the constraint): the best expert is chosen freely, the
    other K - 1 are the best of its T collaborators. Equal logits go to the lower expert. The weights are the softmax
    over all experts, of those chosen.

    Returns topk_idx [N, K], best first, and topk_weights [N, K].
    """
    candidates = np.ones(logits.shape, bool)
    if lists is not None:
        best = np.argmax(logits, axis=1)
        candidates[:] = False
        np.put_along_axis(candidates, lists[best], True, axis=1)
        np.put_along_axis(candidates, best[:, None], True, axis=1)
    masked = np.where(candidates, logits, -np.inf)
    topk_idx = np.argsort(-masked, axis=1, kind="stable")[:, :top_k]
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exps / exps.sum(axis=1, keepdims=True)
    return topk_idx.astype(np.int32), np.take_along_axis(probabilities, topk_idx, axis=1)


# ---------------------------------------------------------------------------------------------------------------
# 2. Profile: which experts work together
# ---------------------------------------------------------------------------------------------------------------


def count_collaboration(topk_idx, num_experts):
    """c2r.count_collaboration: C [E, E]; C[i, j] tokens chose both i and j. The diagonal is the load of an expert."""
    counts = np.zeros((num_experts, num_experts), np.int64)
    for token in topk_idx:
        counts[np.ix_(token, token)] += 1
    return counts


def collaborators(counts, top_t):
    """c2r.collaborators: [E, T], for each expert those it works with most. Equal counts go to the lower expert."""
    others = counts.copy()
    np.fill_diagonal(others, -1)  # an expert is not its own collaborator
    return np.argsort(-others, axis=1, kind="stable")[:, :top_t].astype(np.int32)


# ---------------------------------------------------------------------------------------------------------------
# 3. Place: experts that work together on one rank
# ---------------------------------------------------------------------------------------------------------------


def copies_per_token(topk_idx, rank_of_expert):
    """The mean number of distinct ranks that hold a token's experts: the copies of it that have to be sent."""
    ranks = np.sort(rank_of_expert[topk_idx], axis=1)
    return 1 + np.mean(np.sum(ranks[:, 1:] != ranks[:, :-1], axis=1))


def even_partitions(experts, size):
    """All ways to split a tuple of experts into sets of `size`, each way once: the first set holds the first expert."""
    if not experts:
        yield ()
        return
    for others in itertools.combinations(experts[1:], size - 1):
        rest = tuple(e for e in experts[1:] if e not in others)
        for sets in even_partitions(rest, size):
            yield ((experts[0], *others), *sets)


def place(topk_idx, num_experts, num_ranks):
    """c2r.plan(method="exhaustive"): rank_of_expert [E] with the fewest copies, equally many experts on every rank.

    There are 105 ways to put 8 experts on 4 ranks, so this function tries all. For 60 experts c2r searches, bounds
    the load of the busiest rank, and says how far from the optimum the result can be.
    """

    def ranks_of(sets):
        rank_of_expert = np.empty(num_experts, np.int64)
        for rank, members in enumerate(sets):
            rank_of_expert[list(members)] = rank
        return rank_of_expert

    partitions = even_partitions(tuple(range(num_experts)), num_experts // num_ranks)
    return min(map(ranks_of, partitions), key=lambda ranks: copies_per_token(topk_idx, ranks))


# ---------------------------------------------------------------------------------------------------------------
# 4. Dispatch, experts, combine
# ---------------------------------------------------------------------------------------------------------------

Row = namedtuple("Row", "token experts weights values")  # one copy of a token, for those of its experts on one rank


def dispatch(x, topk_idx, topk_weights, rank_of_expert, per_expert):
    """A rank's rows for every rank: outbox[r] is a list of Row.

    per_expert: one row for each token and expert, as MegaBlocks sends them. Otherwise one row for each token and rank,
    however many of the token's experts that rank holds.
    """
    outbox = [[] for _ in range(NUM_RANKS)]
    for token, (experts, weights) in enumerate(zip(topk_idx, topk_weights, strict=True)):
        ranks = rank_of_expert[experts]
        if per_expert:
            groups = [(rank, [k]) for k, rank in enumerate(ranks)]
        else:
            groups = [(rank, np.flatnonzero(ranks == rank)) for rank in np.unique(ranks)]
        for rank, chosen in groups:
            outbox[rank].append(Row(token, experts[chosen], weights[chosen], x[token]))
    return outbox


def run_experts(layer, inbox):
    """On the rank of the experts: each row becomes the weighted sum over its experts, so that one row returns."""

    def weighted_sum(row):
        outputs = np.stack([expert(layer, e, row.values[None])[0] for e in row.experts])
        return row.weights @ outputs

    return [row._replace(values=weighted_sum(row)) for row in inbox]


def combine(returned, num_tokens):
    """At home: the rows that have come back are added to their tokens. [N, H]"""
    out = np.zeros((num_tokens, HIDDEN))
    for row in itertools.chain.from_iterable(returned):
        out[row.token] += row.values
    return out


def expert_parallel_layer(layer, x_of_rank, routing_of_rank, rank_of_expert, per_expert=False):
    """The layer on all ranks, each with tokens of its own.

    Returns the outputs [N, H] of each rank, and rows [R, R]: rows that rank i sent to rank j. As many return.
    """
    outboxes = [
        dispatch(x, *routing, rank_of_expert, per_expert) for x, routing in zip(x_of_rank, routing_of_rank, strict=True)
    ]
    rows = np.array([[len(to_rank) for to_rank in outbox] for outbox in outboxes])
    # The exchange: rank r gets outboxes[source][r] of every source, and each source gets the sums of its rows back.
    computed = [[run_experts(layer, outbox[rank]) for outbox in outboxes] for rank in range(NUM_RANKS)]
    returned = [[computed[rank][source] for rank in range(NUM_RANKS)] for source in range(NUM_RANKS)]
    return [combine(back, len(x)) for back, x in zip(returned, x_of_rank, strict=True)], rows


def plain_layer(layer, x, topk_idx, topk_weights):
    """The layer by its definition, on one rank: out[t] = sum over k of weight[t, k] * expert[t, k](x[t])."""
    out = np.zeros_like(x)
    for e in range(NUM_EXPERTS):
        token, k = np.nonzero(topk_idx == e)
        out[token] += topk_weights[token, k, None] * expert(layer, e, x[token])
    return out


# ---------------------------------------------------------------------------------------------------------------
# What it is all for
# ---------------------------------------------------------------------------------------------------------------


def rows_on_the_wire(rows):
    """Rows that leave their rank; a row for an expert of the own rank is not sent."""
    return int(rows.sum() - np.trace(rows))


def profile(layer, lists=None, num_tokens=4000):
    """The choices of the router on tokens that are not measured later. topk_idx [N, K]"""
    return route(make_tokens(np.random.default_rng(1), num_tokens) @ layer.gate.T, TOP_K, lists)[0]


def measure(layer, x_of_rank, lists, rank_of_expert, per_expert):
    """One line of the table: the rows a token on the wire. The result is checked against the plain layer."""
    routing_of_rank = [route(x @ layer.gate.T, TOP_K, lists) for x in x_of_rank]
    outs, rows = expert_parallel_layer(layer, x_of_rank, routing_of_rank, rank_of_expert, per_expert)
    for out, x, routing in zip(outs, x_of_rank, routing_of_rank, strict=True):
        np.testing.assert_allclose(out, plain_layer(layer, x, *routing), rtol=0, atol=1e-12)
    return rows_on_the_wire(rows) / sum(map(len, x_of_rank))


def main():
    rng = np.random.default_rng(0)
    layer = make_layer(rng)
    x_of_rank = [make_tokens(rng, 64) for _ in range(NUM_RANKS)]

    profiled = profile(layer)
    counts = count_collaboration(profiled, NUM_EXPERTS)
    contiguous = np.arange(NUM_EXPERTS) // (NUM_EXPERTS // NUM_RANKS)
    placed = place(profiled, NUM_EXPERTS, NUM_RANKS)

    print("How often experts were chosen together (the diagonal: how often at all):")
    print(counts)
    print("\nrank of each expert: contiguous", contiguous, " placed", placed)
    print("\nrows a token that cross the wire, one way:")
    print(f"  {measure(layer, x_of_rank, None, contiguous, True):.3f}  one row for each expert")
    print(f"  {measure(layer, x_of_rank, None, contiguous, False):.3f}  one row for each rank")
    print(f"  {measure(layer, x_of_rank, None, placed, False):.3f}  and collaborating experts on one rank")
    for top_t in (4, 3, 2):
        lists = collaborators(counts, top_t)
        placed = place(profile(layer, lists), NUM_EXPERTS, NUM_RANKS)
        rows = measure(layer, x_of_rank, lists, placed, False)
        print(f"  {rows:.3f}  and the router chooses among {top_t} collaborators (this changes the output)")


if __name__ == "__main__":
    main()
