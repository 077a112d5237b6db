"""Rules and penalties of the experiment by worked examples, and its tables from records made by hand."""

import json
import math
import xml.etree.ElementTree

import pytest
import torch
import transformers
import zstandard

from training.corpus import DOMAINS, is_held_out
from training.experiment import report, rivals, texts
from training.experiment.conditions import CONDITIONS
from training.experiment.driver import main, record_of

RANKS = torch.tensor([0, 0, 1, 1, 2, 2])
#                         rank 0      rank 1      rank 2
LOGITS = torch.tensor([[5.0, 0.0, 4.0, 1.0, 3.0, 2.0],
                       [0.0, 1.0, 2.0, 2.0, 9.0, -1.0]])  # fmt: skip


def test_device_limited_routing_keeps_the_ranks_of_the_best_experts():
    # Token 0 likes rank 0 (5) best, then rank 1 (4); token 1 rank 2 (9), then rank 1 (2, and 3 ties with 2).
    assert rivals.device_limited(LOGITS, RANKS, 1, 2).tolist() == [[0, 1], [4, 5]]
    assert rivals.device_limited(LOGITS, RANKS, 2, 3).tolist() == [[0, 2, 3], [4, 2, 3]]
    assert rivals.device_limited(LOGITS, RANKS, 3, 3).tolist() == [[0, 2, 4], [4, 2, 3]]


def test_group_balanced_routing_takes_as_many_of_every_rank():
    assert rivals.group_balanced(LOGITS, RANKS, 3).tolist() == [[0, 2, 4], [4, 2, 1]]
    with pytest.raises(ValueError, match="top-4 cannot be divided among 3 ranks"):
        rivals.group_balanced(LOGITS, RANKS, 4)


def test_batch_aware_routing_fills_up_with_what_the_batch_has():
    # Each token's best two are 0 and 2, and 4 and 2: the third comes from {0, 2, 4}.
    assert rivals.batch_aware(LOGITS, 2, 3).tolist() == [[0, 2, 4], [4, 2, 0]]
    # Best ones alone are 0 and 4, too few for three of a token: every expert is allowed.
    assert rivals.batch_aware(LOGITS, 1, 3).tolist() == [[0, 2, 4], [4, 2, 3]]


def test_the_outside_share_is_what_the_best_rank_leaves():
    logits = torch.log(torch.tensor([[0.5, 0.1, 0.2, 0.1, 0.05, 0.05], [0.1, 0.1, 0.1, 0.1, 0.3, 0.3]]))
    assert rivals.outside_share(logits, RANKS).item() == pytest.approx(((1 - 0.6) + (1 - 0.6)) / 2)


def test_the_divergence_is_kullback_and_leiblers():
    before, now = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert rivals.divergence(now, before).item() == pytest.approx(expected)
    assert rivals.divergence(now, now).item() == pytest.approx(0)


class Letters:
    eos_token_id = 0

    def __call__(self, text):
        return {"input_ids": [ord(character) for character in text]}


def write_corpora(folder):
    """Of each domain 400 documents of letters of its own, of which some 8 are held out."""
    documents = {}
    for at, domain in enumerate(DOMAINS):
        letter = "abcde"[at]
        documents[domain] = [f"{number:04d}" + letter * 300 for number in range(400)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[domain])
        (folder / f"{domain}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return documents


def test_held_out_documents_are_of_all_domains_at_even_and_at_odd_places_and_never_trained_on(tmp_path):
    documents = write_corpora(tmp_path)
    found = texts.held_out(tmp_path, Letters(), 4, 32)
    assert len(found) == 4 * len(DOMAINS)
    for part in (found[::2], found[1::2]):
        assert sorted(document.domain for document in part) == sorted([*DOMAINS] * 2)
    kept = {domain: [text for text in documents[domain] if is_held_out(text)] for domain in DOMAINS}
    beginnings = {tuple(map(ord, text[:32])) for some in kept.values() for text in some}
    assert {tuple(document.ids) for document in found} <= beginnings
    rows = texts.to_train_on(tmp_path, Letters(), 5000, 50)
    assert len(rows) == 100
    assert all(len(row) == 50 for row in rows)
    # Each row is of one domain, and domains take turns.
    letters = ["".join(sorted({chr(token) for token in row} & set("abcde"))) for row in rows]
    assert letters[:10] == list("abcdeabcde")
    text = "".join(chr(token) for row in rows[::5] for token in row)
    assert not any(whole[:4] in text for whole in kept["novels"])


def small_model():
    torch.manual_seed(1)
    config = transformers.OlmoeConfig(
        vocab_size=31, hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_experts=6,
        num_experts_per_tok=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config)


def test_a_rule_is_what_the_model_routes_by_and_can_be_taken_off():
    model, ids = small_model().eval(), torch.arange(2, 12).view(1, 10)
    seen = []
    free = model(ids).logits
    handles = rivals.apply_rules(model, [lambda logits: rivals.device_limited(logits, RANKS, 1, 2)] * 2)
    model.model.layers[1].mlp.gate.register_forward_hook(lambda module, inputs, output: seen.append(output[2]) or None)
    limited = model(ids).logits
    assert all(RANKS[a] == RANKS[b] for a, b in seen[0].tolist())
    assert not torch.equal(free, limited)
    for handle in handles:
        handle.remove()
    assert torch.equal(free, model(ids).logits)


def test_the_penalty_lowers_what_leaves_the_best_rank():
    """Steps against the penalty alone; with an anchor that outweighs it, the router moves less."""
    shares = []
    for anchor in (0.0, 10.0):
        model, ids = small_model().train(), torch.arange(2, 30).view(1, 28)
        penalty = rivals.RankPenalty(model, [RANKS, RANKS], strength=1.0, anchor=anchor)
        gates = [layer.mlp.gate.weight for layer in model.model.layers]
        optimizer = torch.optim.SGD(gates, lr=0.5)
        values = []
        for _ in range(20):
            logits = model(ids, output_router_logits=True).router_logits
            values.append(sum(rivals.outside_share(layer, RANKS).item() for layer in logits))
            loss = penalty(model, {})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shares.append((values[0], values[-1]))
    assert shares[0][1] < shares[0][0] - 0.01
    assert shares[0][1] < shares[1][1] < shares[1][0] + 1e-3


def record(name, losses, copies, seed=1):
    step = {"copies_per_token": copies, "imbalance": 1.1}
    steps = {"per-expert": step | {"copies_per_token": 4.0}, "deduplication": step, "placement": step, "one slot": step}
    return {
        "condition": name, "seed": seed, "model": "m", "length": 8, "trained_tokens": 64, "learning_rate": 1e-3,
        "minutes": 1, "machine": "x", "domains": ["code", "code", "novels"], "losses": losses,
        "distinct_experts_of_8_tokens": 9, "traffic": dict.fromkeys(("2", "4", "8"), steps),
    }  # fmt: skip


def write(folder, *records):
    for one in records:
        (folder / record_of(one["condition"], one["seed"])).write_text(json.dumps(one))


def test_differences_are_paired_by_document():
    found = report.paired([2.0, 3.0, 7.0], [1.0, 3.0, 5.0])  # differences 1, 0, 2
    assert found.mean == pytest.approx(1)
    assert found.half_width == pytest.approx(1.96 * 1 / math.sqrt(3))


def test_tables_and_figure_come_from_records(tmp_path):
    write(tmp_path, record("free", [1.0, 2.0, 3.0], 2.5), record("T=4", [1.1, 2.1, 3.4], 1.5),
          record("T=4", [1.3, 2.3, 3.2], 1.7, seed=2))  # fmt: skip
    found = report.read_records(tmp_path)
    assert list(found) == ["free", "T=4"]
    text = report.report(found)
    assert "| T=4 | 2 | 2.2333 | +0.2333 ± 0.0653 | +0.2000 ± 0.0000 | +0.3000 ± 0.0000 |" in text
    assert "| T=4 | 4.000 | 1.600 | 1.600 | 1.600 | 1.100 | 9.00 |" in text
    assert report.main(["--records", str(tmp_path), "-o", str(tmp_path)]) == 0
    figure = xml.etree.ElementTree.parse(tmp_path / "experiment.svg").getroot()
    assert sum(element.tag.endswith("circle") for element in figure) == 2


def test_records_of_other_runs_are_not_compared(tmp_path):
    write(tmp_path, record("free", [1.0, 2.0, 3.0], 2.5), record("T=4", [1.0, 2.0, 3.0], 2) | {"trained_tokens": 128})
    with pytest.raises(ValueError, match=r"runs have \[64, 128\] tokens"):
        report.read_records(tmp_path)
    write(tmp_path, record("T=4", [1.0, 2.0, 3.0], 2) | {"model": "other"})
    with pytest.raises(ValueError, match="another model"):
        report.read_records(tmp_path)


def test_conditions_that_do_not_exist_are_named(tmp_path, capsys):
    assert main(["m", "--data", str(tmp_path), "--conditions", "T=5", "--tokens", "9"]) == 1
    assert capsys.readouterr().err.startswith(
        "training.experiment: there is no condition 'T=5'; there are: before; free"
    )
    assert len({record_of(name, 1) for name in CONDITIONS}) == len(CONDITIONS)
