"""The model card says what the log says."""

import math

import pytest

from training.card import card as make_card
from training.card import curve, joined, routing


def test_the_curve_has_means_of_both_losses_since_the_place_before():
    steps = [{"tokens": n * 1_000_000, "loss": float(n), "balance_loss": n / 10} for n in range(1, 6)]
    assert curve(steps, num_rows=2).splitlines()[2:] == ["| 2.0 | 1.500 | 0.150 |", "| 5.0 | 4.000 | 0.400 |"]


def test_routing_says_where_it_comes_from_if_not_from_the_run():
    record = {"expert_imbalance": [1.5], "least_load": [0.5], "specialization": [0.25], "unused_experts": [1]}
    assert routing(record).endswith("| 0 | 1.500 | 0.500 | 0.250 | 1 |\n\nc2r's docs/metrics.md defines the columns.")
    assert routing(record | {"routing_note": "Recomputed."}).endswith("defines the columns. Recomputed.")
    record["imbalance"] = record.pop("expert_imbalance")
    assert "| 0 | 1.500 | 0.500 | 0.250 | 1 |" in routing(record), "logs of before have another name"


def test_pieces_of_a_run_are_named_in_order_and_once():
    starts = [{"commit": commit} for commit in ("b", "a", "b", "")]
    assert joined(starts, "commit") == "b, then a, then unknown"


def test_a_card_compares_with_a_control_that_has_seen_the_same_tokens():
    def log(loss: float, tokens: int, held_out: int = 30, **other: float) -> list[dict]:
        data = {d: {"train": {"documents": 1, "tokens": 9}, "held_out": {"documents": 1, "tokens": n, "utf8_bytes": 4 * n},
                    "overlapping": 0} for d, n in (("novels", 10), ("code", held_out))}  # fmt: skip
        start = {"event": "start", "config": {"name": "dense", "model": {"family": "qwen2", "max_tokens": 16},
                 "training": {"num_tokens": tokens, "batch_sequences": 4, "seed": 1, "learning_rate": 0.1,
                              "warmup_steps": 2, "final_learning_rate": 0.5} | other},
                 "data": data, "machine": "", "torch": "", "grouped_matmul": "", "commit": "", "command": "",
                 "num_parameters": 9, "num_active_parameters": 9}  # fmt: skip
        step = {"event": "step", "step": 1, "tokens": tokens, "loss": 1.0, "balance_loss": 0.0}
        losses = {"novels": loss, "code": loss + math.log(2)}
        evaluations = [
            {"event": "evaluation", "step": n, "losses": {"novels": loss + more, "code": loss}}
            for n, more in ((1, math.log(3)), (2, 0.0))
        ]
        return [start, step, *evaluations,
                {"event": "finish", "losses": losses, "seconds": 60, "cpu_seconds": 30, "samples": []}]  # fmt: skip

    text = make_card(log(math.log(4), 64), log(math.log(5), 64))
    assert "| code | 1 | 2.079 | 8.00 | 0.750 |" in text  # ln 8 nats a token of 4 bytes: 3 bits
    assert "in 1.0 minutes (0.5 of processor time, the rest waiting)" in text
    assert (
        "| novels | 4.00 | 5.00 | -20.0 % |\n| code | 8.00 | 10.00 | -20.0 % |\n| all | 6.73 | 8.41 | -20.0 % |" in text
    )
    text = make_card(log(math.log(4), 64), log(math.log(5), 64)[:3])  # cut short after step 1
    assert "compared after 0.0 M tokens, on the first batch" in text
    assert "| novels | 12.00 | 15.00 | -20.0 % |\n| code | 4.00 | 5.00 | -20.0 % |" in text
    for other, message in (
        (log(1.0, 32), "the control has other num_tokens: 32, not 64"),
        (log(1.0, 64, held_out=31), "the control has other data"),
        (log(1.0, 64, seed=2), "the control has other seed: 2, not 1"),
        (log(1.0, 64, learning_rate=0.2), "the control has other learning_rate: 0.2, not 0.1"),
        (log(1.0, 64, warmup_steps=3), "the control has other warmup_steps: 3, not 2"),
        (log(1.0, 64, final_learning_rate=0.1), "the control has other final_learning_rate: 0.1, not 0.5"),
        (log(1.0, 64)[:2], "the control's run has not ended, and was never evaluated after the same step"),
        ([], "the control's log is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            make_card(log(1.0, 64), other)
