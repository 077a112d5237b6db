"""The runs of the experiment: a rule of routing, and how the model is trained under it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Condition:
    """rule: free, lists, lists-per-layer, device-limited, group-balanced or batch-aware.

    value: T of lists; nats per token that all layers together may cost for lists-per-layer; ranks of a token; free
    experts of a token.
    trained: all, router or nothing. penalty, anchor: of rivals.RankPenalty.
    """

    rule: str = "free"
    value: float = 0
    trained: str = "all"
    penalty: float = 0.0
    anchor: float = 0.0


# The least T is top_k - 1. T = 4, 8 and 16 of 32 experts are the three tries of the lists; each rival has three, too.
CONDITIONS = {
    "before": Condition(trained="nothing"),
    "free": Condition(),
    **{f"T={t}": Condition("lists", t) for t in (2, 3, 4, 6, 8, 12, 16)},
    **{f"T={t}, untrained": Condition("lists", t, "nothing") for t in (2, 3, 4, 6, 8, 12, 16)},
    **{f"T per layer, {b}": Condition("lists-per-layer", b) for b in (0.05, 0.1, 0.2)},
    **{f"at most {m} ranks": Condition("device-limited", m) for m in (1, 2, 3)},
    **{f"at most {m} ranks, untrained": Condition("device-limited", m, "nothing") for m in (1, 2, 3)},
    **{f"penalty {p}": Condition(penalty=p) for p in (0.3, 1.0, 3.0)},
    **{f"router alone, penalty {p}": Condition(trained="router", penalty=p, anchor=0.1) for p in (0.3, 1.0, 3.0)},
    "group-balanced, untrained": Condition("group-balanced", 0, "nothing"),
    **{f"batch-aware {n}, untrained": Condition("batch-aware", n, "nothing") for n in (1, 2, 3)},
}


def is_trained(name: str) -> bool:
    return CONDITIONS[name].trained != "nothing"


# Curves of at least three conditions, to be compared at equal copies; each ends at the routing that is free.
CURVES = {
    "collaborator lists": [f"T={t}" for t in (4, 6, 8, 12, 16)],
    "T per layer": [f"T per layer, {b}" for b in (0.05, 0.1, 0.2)],
    "at most M ranks": [f"at most {m} ranks" for m in (1, 2, 3)],
    "penalty on all": [f"penalty {p}" for p in (0.3, 1.0, 3.0)],
    "penalty on the router alone": [f"router alone, penalty {p}" for p in (0.3, 1.0, 3.0)],
}
# Those that were not trained, whose reference is the model before.
UNTRAINED_CURVES = {
    "collaborator lists, untrained": [f"T={t}, untrained" for t in (4, 8, 16)],
    "at most M ranks, untrained": [f"at most {m} ranks, untrained" for m in (1, 2, 3)],
}
