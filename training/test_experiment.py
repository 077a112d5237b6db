"""The experiment: its texts, its runs, and its tables from records made by hand."""

import json
import math
import pathlib
import types
import xml.etree.ElementTree

import c2r
import numpy as np
import pytest
import torch
import zstandard
from c2r.evaluate.scorer import find_program

from training.corpus import DOMAINS, is_held_out
from training.experiment import compare, driver, figures, report, tasks, texts
from training.experiment.conditions import CONDITIONS
from training.experiment.driver import Experiment, main, record_of
from training.experiment.measure import costs


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


def test_a_run_is_refused_for_which_there_is_too_little_text(tmp_path):
    write_corpora(tmp_path)
    experiment = types.SimpleNamespace(_corpora=tmp_path, tokenizer=Letters(), length=50)
    assert len(Experiment.training_rows(experiment, 5000)) == 100
    with pytest.raises(ValueError, match="tokens to train on, 5000000 are asked for"):
        Experiment.training_rows(experiment, 5_000_000)


def record(name, losses, copies, seed=1, **more):
    step = {"copies_per_token": copies, "imbalance": 1.1}
    steps = {"per-expert": step | {"copies_per_token": 4.0}, "deduplication": step, "placement": step, "one slot": step}
    times = {"per-expert": 0.4, "deduplication": 0.3, "placement": copies / 10, "overlap": copies / 20}
    is_trained = CONDITIONS[name].trained != "nothing"
    tokens = more.pop("trained_tokens", 64) if is_trained else 0
    return {
        "condition": name, "seed": seed, "model": "m", "length": 8, "trained_tokens": tokens,
        "learning_rate": 1e-3, "minutes": 1, "machine": "x", "domains": ["code", "code", "novels"], "losses": losses,
        "distinct_experts_of_8_tokens": 9, "traffic": dict.fromkeys(("2", "4", "8"), steps),
        "layer_time_s": {"NVLink": times}, "effective_collaborators": [1.5, 2.0], "pairs_of_second_layer": [1, 0, 3],
        "training_loss": [[2, sum(losses)], [4, losses[0]]] if is_trained else [],
    } | more  # fmt: skip


def write(folder, *records):
    folder.mkdir(exist_ok=True)
    for one in records:
        (folder / record_of(one["condition"], one["seed"], one["trained_tokens"])).write_text(json.dumps(one))


def test_intervals_are_over_documents_and_over_seeds():
    one_seed = compare.paired([[1.0, 0.0, 2.0]])
    assert one_seed.mean == pytest.approx(1)
    assert one_seed.half_width == pytest.approx(1.96 * 1 / math.sqrt(3))
    # Means of documents: 2, 1, 3; of seeds: 1 and 3, whose mean has the standard error 1.
    two_seeds = compare.paired([[1.0, 0.0, 2.0], [3.0, 2.0, 4.0]])
    assert two_seeds.mean == pytest.approx(2)
    assert two_seeds.half_width == pytest.approx(math.hypot(1.96 / math.sqrt(3), 12.706 * 1))


def test_losses_are_paired_by_document_and_seed():
    free = [record("free", [1.0, 2.0, 3.0], 2.5), record("free", [2.0, 2.0, 2.0], 2.5, seed=2)]
    constrained = [record("T=4", [1.5, 2.5, 4.0], 2, seed=1), record("T=4", [2.5, 2.5, 2.0], 2, seed=2)]
    # Differences: 0.5, 0.5, 1 and 0.5, 0.5, 0.
    assert compare.loss_difference(constrained, free).mean == pytest.approx(0.5)
    code = compare.loss_difference(constrained, free, "code")
    assert (code.mean, code.half_width) == (pytest.approx(0.5), pytest.approx(0))
    # One seed alone is compared with its own; a model that was not trained is the reference of every seed.
    assert compare.loss_difference(constrained[1:], free).mean == pytest.approx(1 / 3)
    before = [record("before", [1.0, 1.0, 1.0], 2.5)]
    untrained = [record("T=4, untrained", [1.0, 1.0, 4.0], 2, seed=2)]
    assert compare.loss_difference(untrained, before).mean == pytest.approx(1)
    with pytest.raises(ValueError, match="no seed of T=4 is one of free"):
        compare.loss_difference([record("T=4", [1.0, 1.0, 1.0], 2, seed=3)], free)


def test_training_losses_are_compared_at_the_same_text():
    free = [record("free", [1.0, 2.0, 3.0], 2.5), record("free", [2.0, 2.0, 2.0], 2.5, seed=2)]
    constrained = [record("T=4", [2.0, 2.0, 3.0], 2), record("T=4", [2.0, 2.0, 3.0], 2, seed=2)]
    # Step 2: 7 - 6 and 7 - 6; step 4: 2 - 1 and 2 - 2.
    assert compare.training_curve(constrained, free) == [(2, 1.0), (4, 0.5)]


def at(copies, loss):
    return compare.Point("", copies, 1.0, 9.0, compare.Paired(loss, 0.1))


def test_equal_copies_are_read_off_straight_lines():
    curve = [at(2.0, 0.0), at(1.0, 0.4), at(1.5, 0.1)]
    assert compare.at_copies(curve, 1.0) == pytest.approx(0.4)
    assert compare.at_copies(curve, 1.25) == pytest.approx(0.25)
    assert compare.at_copies(curve, 1.75) == pytest.approx(0.05)
    assert compare.at_copies(curve, 0.9) is None
    assert compare.at_copies(curve, 2.1) is None


def test_curves_need_three_points_and_end_at_free_routing(tmp_path):
    write(tmp_path, record("free", [1.0, 1.0, 1.0], 2.0), record("T=4", [2.0, 2.0, 2.0], 1.0),
          record("T=8", [1.2, 1.2, 1.2], 1.5))  # fmt: skip
    assert report.curves(report.read_records(tmp_path)[64]) == {}
    write(tmp_path, record("T=16", [1.1, 1.1, 1.1], 1.9))
    found = report.curves(report.read_records(tmp_path)[64])
    assert [one.name for one in found["collaborator lists"]] == ["T=4", "T=8", "T=16", "free"]
    text = report.equal_copies_table(found)
    # From 1.0 to 2.0 in steps of two tenths, from the first that is above the least.
    assert "| loss difference at copies per token: | points | 1.1 | 1.3 | 1.5 | 1.7 | 1.9 |" in text
    assert "| collaborator lists | 3 | +0.8400 | +0.5200 | +0.2000 | +0.1500 | +0.1000 |" in text


TASKS = {"piqa": {"documents": 20, "acc": 0.5, "acc_stderr": 0.1}, "sciq": {"documents": 20, "acc": 0.7, "acc_stderr": 0.1},
         "lambada_openai": {"documents": 50, "acc": 0.01, "acc_stderr": 0.01, "perplexity": 900.0, "perplexity_stderr": 90.0}}  # fmt: skip


def test_the_page_comes_from_records(tmp_path):
    write(tmp_path / "small", record("free", [1.0, 2.0, 3.0], 2.5, tasks=TASKS, tasks_engine="c2r"), record("T=4", [1.1, 2.1, 3.4], 1.5),
          record("free", [1.0, 2.0, 3.0], 2.5, seed=2), record("T=4", [1.3, 2.3, 3.2], 1.7, seed=2))  # fmt: skip
    assert report.main(["--records", str(tmp_path), "-o", str(tmp_path)]) == 0
    text = (tmp_path / "experiment.md").read_text()
    # By document the means over seeds are 0.2, 0.2, 0.3; by seed the means are 0.2 and 0.2667.
    assert f"| T=4 | 2 | 2.2333 |  | +0.2333 ± {math.hypot(1.96 / 30, 12.706 / 30):.4f} | +0.2000 ±" in text
    assert "| T=4 | 4.000 | 1.600 | 1.600 | 1.600 | 1.100 | 1.100 |" in text
    assert "| T=4 | 1.000 | 0.750 | 0.400 | 0.200 |" in text
    assert "| T=4 | 1.5 | 2.0 | 9.00 |  |" in text
    assert "| free | 64 | 1 | 50.0 ± 10.0 | 70.0 ± 10.0 | 1.0 ± 1.0 | 900 ± 90 | 60.00 | c2r |" in text
    # Two conditions in three panels and one series, for there is no curve yet.
    front = xml.etree.ElementTree.parse(tmp_path / "small_front.svg").getroot()
    assert sum(element.tag.endswith("circle") for element in front) == 3 * 2 + 1
    assert "At equal copies" not in text


def test_figures_have_every_condition_of_an_experiment_with_a_curve(tmp_path):
    losses = [1.0, 2.0, 3.0]
    write(tmp_path / "small", record("before", losses, 2.5), record("free", losses, 2.5), record("penalty 1.0", losses, 2),
          *(record(f"T={t}", [1.5, 2.4, 3.0], 1 + t / 10) for t in (4, 8, 12)))  # fmt: skip
    assert report.main(["--records", str(tmp_path), "-o", str(tmp_path)]) == 0
    front = xml.etree.ElementTree.parse(tmp_path / "small_front.svg").getroot()
    # Three panels: three points of the curve and its end, the penalty, the model before and its replicas; and the legend.
    assert sum(element.tag.endswith("circle") for element in front) == 3 * (4 + 1 + 1 + 1) + 4
    training = xml.etree.ElementTree.parse(tmp_path / "small_training.svg").getroot()
    assert sum(element.tag.endswith("circle") for element in training) == 3 * 2 + 3
    # The model before is a reference of all: the losses 1.5, 2.4, 3.0 minus 1, 2, 3.
    assert "| T=4 | 1 | 2.3000 | +0.3000 ±" in (tmp_path / "experiment.md").read_text()
    heat = (tmp_path / "small_specialization.svg").read_text()
    assert all(f">{name}</text>" in heat for name in ("before", "free", "T=8", "T=4"))


def test_axes_have_round_ticks():
    assert figures.Axis("", 0.93, 2.07).ticks() == pytest.approx([1.0, 1.5, 2.0])
    assert figures.Axis("", -0.031, 0.1).ticks() == pytest.approx([0.0, 0.05, 0.1])


def test_heat_maps_shade_by_the_share_of_partners():
    assert figures.square_of([1, 0, 3]) == [[0, 1, 0], [1, 0, 3], [0, 3, 0]]
    drawn = figures.heat_maps({"x": [1, 0, 3]}, order=[2, 0, 1], cell=10)
    # Rows 2, 0, 1. Experts 2 and 0 have one partner each, 1; expert 1 has 2 for three quarters and 0 for one: black all.
    assert drawn.count("h10v10h-10z") == 4
    assert 'd="M44 24h10v10h-10zM44 34h10v10h-10zM24 44h10v10h-10zM34 44h10v10h-10z" fill="#000000"' in drawn
    assert 'fill="#ffffff"' not in drawn


def test_costs_follow_from_the_trace_and_the_log(tmp_path):
    """Two halves of the experts that never work together: two ranks hold a half each, so four tokens need a copy each."""
    header = c2r.TraceHeader(num_experts=8, top_k=2, layer_indices=[0, 1])
    choices = np.array([[0, 2], [2, 4], [4, 6], [6, 0], [1, 3], [3, 5], [5, 7], [7, 1]] * 200, np.int32)
    writer = c2r.TraceWriter(tmp_path / "trace.safetensors", header, has_weights=False)
    for _ in range(2):
        writer.start_sequence()
        for layer in range(2):
            writer.append(layer, choices, None, "test")
    writer.finish()
    (tmp_path / "log.jsonl").write_text('{"step": 2, "loss": 1.5, "learning_rate": 0}\n')
    found = costs(find_program(), tmp_path)
    assert found["traffic"]["2"]["per-expert"]["copies_per_token"] == 2
    assert found["traffic"]["2"]["deduplication"]["copies_per_token"] == 1.5
    assert found["traffic"]["2"]["placement"]["copies_per_token"] == 1
    assert (
        found["traffic"]["4"]["one slot"]["copies_per_token"] < found["traffic"]["4"]["placement"]["copies_per_token"]
    )
    assert found["effective_collaborators"] == pytest.approx([2, 2])
    assert len(found["pairs_of_second_layer"]) == 28
    assert found["pairs_of_second_layer"][:7] == [0, 400, 0, 0, 0, 400, 0]  # of expert 0 with 2 and with 6
    assert found["training_loss"] == [[2, 1.5]]
    slow, fast = found["layer_time_s"]["200 Gb/s"], found["layer_time_s"]["NVLink"]
    # Contiguous experts are two by two, and no token has two of a rank: deduplication saves nothing at 4 ranks.
    assert slow["placement"] < slow["deduplication"] == slow["per-expert"]
    assert slow["overlap"] < slow["placement"]
    assert fast["placement"] < slow["placement"]


def test_records_of_other_runs_are_not_compared(tmp_path):
    write(tmp_path, record("free", [1.0, 2.0, 3.0], 2.5), record("T=4", [1.0, 2.0, 3.0], 2) | {"model": "other"})
    with pytest.raises(ValueError, match="another model"):
        report.read_records(tmp_path)


def test_runs_of_other_lengths_are_compared_among_themselves(tmp_path):
    """Only lists have two lengths with free routing; the main tables are of the length that most runs have."""
    longer = {"trained_tokens": 256}
    write(tmp_path / "small", record("before", [1.0, 2.0, 3.0], 2.5), record("T=4, untrained", [1.5, 2.5, 3.5], 1.5),
          record("free", [0.9, 2.0, 3.0], 2.5), record("T=4", [1.2, 2.3, 3.3], 1.5), record("T=8", [1.1, 2.2, 3.2], 1.9),
          record("free", [0.6, 1.7, 2.7], 2.5, **longer), record("T=4", [0.7, 1.8, 2.8], 1.5, **longer))  # fmt: skip
    by_length = report.read_records(tmp_path / "small")
    assert {length: list(found) for length, found in by_length.items()} == {
        64: ["before", "free", "T=4", "T=8", "T=4, untrained"], 256: ["before", "free", "T=4", "T=4, untrained"]
    }  # fmt: skip
    rows = {(one.name, one.tokens): one for one in report.lengths(by_length)}
    assert list(rows) == [("free", 64), ("free", 256), ("T=4", 0), ("T=4", 64), ("T=4", 256)]
    assert rows["free", 256].of_rule is None
    assert rows["free", 256].since.mean == pytest.approx(-1 / 3)
    assert [rows["T=4", n].of_rule.mean for n in (0, 64, 256)] == pytest.approx([0.5, 0.3, 0.1])
    # The last of the two logged losses, which is the first document's here.
    assert [rows["T=4", n].last for n in (64, 256)] == pytest.approx([0.3, 0.1])
    assert report.main(["--records", str(tmp_path), "-o", str(tmp_path)]) == 0
    text = (tmp_path / "experiment.md").read_text()
    assert "3 runs trained on 64 tokens each" in text
    assert "2 runs of other lengths" in text
    assert "| T=4 | 256 | 1 | -0.2333 ± " in text
    assert "| T=4 | 1 | 2.2667 |" in text  # of 64 tokens
    drawn = xml.etree.ElementTree.parse(tmp_path / "small_lengths.svg").getroot()
    # Minus before: 2 + 3 marks; minus free: T=4 alone; and two names.
    assert sum(element.tag.endswith("circle") for element in drawn) == 5 + 3 + 2


def test_lengths_have_records_of_their_own(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(driver, "Experiment", lambda arguments: types.SimpleNamespace())
    monkeypatch.setattr(driver, "run_condition", lambda experiment, *run: ran.append(run))
    words = ["m", "--data", str(tmp_path), "--conditions", "before;free", "--tokens", "64,256", "--seeds", "1,2"]
    assert main(words) == 0
    assert ran == [("before", 1, 64), ("free", 1, 64), ("free", 2, 64),
                   ("before", 1, 256), ("free", 1, 256), ("free", 2, 256)]  # fmt: skip
    assert record_of("free", 1, 64) == "free.64.seed1.json"
    assert record_of("before", 1, 64) == record_of("before", 1, 256) == "before.seed1.json"
    with pytest.raises(SystemExit):
        main(["m", "--data", str(tmp_path), "--tokens", "64,0"])
    assert "argument --tokens: invalid numbers value: '64,0'" in capsys.readouterr().err


def test_conditions_that_do_not_exist_are_named(tmp_path, capsys):
    assert main(["m", "--data", str(tmp_path), "--conditions", "T=5", "--tokens", "9"]) == 1
    assert capsys.readouterr().err.startswith(
        "training.experiment: there is no condition 'T=5'; there are: before; free"
    )
    assert len({record_of(name, 1, 9) for name in CONDITIONS}) == len(CONDITIONS)


def test_all_conditions_are_those_that_the_model_allows():
    qwen, llama = (types.SimpleNamespace(num_experts=n, top_k=k) for n, k in ((32, 4), (8, 2)))
    assert [Experiment.allows(qwen, f"T={t}") for t in (2, 3, 16)] == [False, True, True]
    assert [Experiment.allows(llama, f"T={t}") for t in (2, 6, 8)] == [True, True, False]
    assert Experiment.allows(qwen, "group-balanced, untrained")
    assert not Experiment.allows(llama, "group-balanced, untrained")
    assert Experiment.allows(llama, "free")


def test_a_record_is_given_its_tasks_once(tmp_path, monkeypatch):
    write(tmp_path, record("free", [1.0, 2.0, 3.0], 2.5), record("free", [1.0, 2.0, 3.0], 2.5, trained_tokens=256))
    asked = []

    def train(experiment, name, seed, num_tokens, output):
        asked.append((name, seed, num_tokens, output.name))
        output.mkdir()
        losses = [6.0, 1.0] if num_tokens == 64 else [6.0, 1.1]
        (output / "log.jsonl").write_text("".join(f'{{"step": {2 + 2 * at}, "loss": {loss}}}\n'
                                                  for at, loss in enumerate(losses)))  # fmt: skip
        return torch.nn.Identity(), {}

    monkeypatch.setattr(tasks, "train", train)
    monkeypatch.setattr(tasks, "language_model", lambda experiment, name, model, output: (name, "c2r"))
    monkeypatch.setattr(tasks, "accuracies", lambda model, folder, limit: {"piqa": {"documents": limit}})
    experiment = types.SimpleNamespace(records=tmp_path, folder=tmp_path, data=tmp_path)
    for name, seed in (("free", 1), ("free", 1), ("free", 2), ("T=4", 1)):
        tasks.add_tasks(experiment, name, seed, 64, 7)
    assert asked == [("free", 1, 64, "free.64.seed1")]
    assert json.loads((tmp_path / "free.64.seed1.json").read_text())["tasks"] == {"piqa": {"documents": 7}}
    # A model that was trained again otherwise is not the record's.
    with pytest.raises(ValueError, match="their training losses differ"):
        tasks.add_tasks(experiment, "free", 1, 256, 7)


def test_the_table_of_tasks_says_how_long_models_were_trained(tmp_path):
    def with_tasks(name, share, **more):
        found = {"piqa": {"documents": 7, "acc": share, "acc_stderr": 0.125},
                 "lambada_openai": {"documents": 9, "acc": 0.25, "acc_stderr": 0.01, "perplexity": 50.0,
                                    "perplexity_stderr": 4.0}}  # fmt: skip
        return record(name, [1.0, 2.0, 3.0], 2.5, tasks=found, tasks_engine="c2r", **more)

    write(tmp_path, with_tasks("before", 0.5), record("T=4", [1.0, 2.0, 3.0], 2), with_tasks("free", 0.5),
          with_tasks("free", 1.0, seed=2), with_tasks("free", 0.75, trained_tokens=256))  # fmt: skip
    rows = [row.strip("| ").split(" | ") for row in report.task_table(report.read_records(tmp_path)).splitlines()]
    assert rows[0] == ["condition", "tokens", "seeds", "piqa (7)", "lambada_openai (9)", "lambada_openai, perplexity",
                       "mean without LAMBADA", "run by"]  # fmt: skip
    assert [[row[0], row[1], row[2], row[3], row[6]] for row in rows[2:]] == [
        ["before", "0", "1", "50.0 ± 12.5", "50.00"], ["free", "64", "2", "75.0 ± 12.5", "75.00"],
        ["free", "256", "1", "75.0 ± 12.5", "75.00"]]  # fmt: skip


def test_c2r_runs_the_models_whose_rule_it_knows():
    known = [name for name in CONDITIONS if tasks.is_known_to_c2r(name)]
    assert {"before", "free", "T=4", "T per layer, 0.1", "penalty 1.0", "router alone, penalty 1.0"} <= set(known)
    assert not {"T=4, untrained", "at most 2 ranks", "group-balanced, untrained"} & set(known)
    experiment = types.SimpleNamespace(model=pathlib.Path("m"), program=find_program())
    for name, folder in (("before", "m"), ("T=4", "trained")):
        model, engine = tasks.language_model(experiment, name, torch.nn.Identity(), pathlib.Path("trained"))
        assert engine == "c2r"
        assert folder in model._scorer._command


def test_the_page_and_figures_in_docs_are_those_of_the_records(tmp_path):
    root = pathlib.Path(__file__).resolve().parents[1]
    records = root / "training" / "experiment" / "records"
    assert report.main(["--records", str(records), "-o", str(tmp_path)]) == 0
    for made in tmp_path.iterdir():
        assert (root / "docs" / made.name).read_text() == made.read_text(), (
            f"{made.name}: run training.experiment.report"
        )
