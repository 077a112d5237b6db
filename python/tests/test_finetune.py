"""c2r.finetune on two-layer models: it learns, obeys, continues a killed run bit for bit, and writes what others read."""

import dataclasses
import json
import lzma
import os
import pathlib
import subprocess

import pytest
import torch
from families import NUM_EXPERTS, TOP_K, VOCABULARY, random_lists, random_model
from ranks import run_ranks
from safetensors.torch import load_file

import c2r
import c2r.hf
import c2r.hf.routers
from c2r.finetune import data, dry_run, run, trainer
from c2r.finetune.__main__ import main
from c2r.finetune.meter import RoutingMeter
from c2r.finetune.settings import RECIPES, VICUNA, Template, with_values
from c2r.hf.constrain import CONSTRAINED

TOP_T = 5
ALONE = run.Spread()
PLAIN = Template(system="", user="{}\n", answer="{}", end="")


class Letters:
    """A tokenizer: one token a character, 0 ends a text."""

    eos_token, eos_token_id, pad_token_id = "\0", 0, None

    def __call__(self, text):
        return {"input_ids": [ord(character) % VOCABULARY for character in text]}

    def save_pretrained(self, folder):
        (pathlib.Path(folder) / "tokenizer.json").write_text("{}")


def settings(**values):
    small = {"batch": 4, "micro_batch": 2, "length": 24, "max_steps": 6, "save_steps": 2, "learning_rate": 3e-3,
             "warmup_steps": 1}  # fmt: skip
    return with_values(dataclasses.replace(RECIPES[values.pop("recipe", "qwen")], template=PLAIN), small | values)


def examples(count=8):
    return [
        data.encode_example(Letters(), PLAIN, "", [data.Turn(f"add {n}", f"{n + 1}{n + 2}{n + 3}")], 24)
        for n in range(count)
    ]


def tuned(
    folder, family="qwen2_moe", count=8, lists=True, penalty=None, start=None, spread=ALONE, **values
):  # fmt: skip
    """Trains a small model into `folder` as the command does. Returns it."""
    chosen = settings(**values)

    def load(checkpoint):
        path = checkpoint or start
        model = random_model(family) if path is None else run.load_model(path, spread)
        model.config.eos_token_id = 1
        if lists:
            c2r.hf.constrain(model, random_lists(TOP_T))
        run.apply_settings(model, chosen)
        return model

    run.prepare_output(folder, chosen, {})
    ranks = [torch.arange(NUM_EXPERTS) // (NUM_EXPERTS // 4)] * 3
    return run.train(load, Letters(), examples(count), chosen, folder, dtype=torch.float32, ranks_of=lambda _: ranks,
                     penalty=penalty)  # fmt: skip


def test_a_template_becomes_ids_of_which_only_answers_are_learned():
    template = Template(system="S", user="{<{}>", answer="{}", end=".")  # a brace is a character like others
    example = data.encode_example(Letters(), template, "", [data.Turn("a", "b"), data.Turn("c", "de")], 99)
    text = "S{<a>b.{<c>de."
    assert example.ids == Letters()(text)["input_ids"]
    learned = "".join(c for c, label in zip(text, example.labels, strict=True) if label != data.IGNORED)
    assert learned == "b.de."
    assert data.encode_example(Letters(), template, "", [data.Turn("a", "b")], 5) is None  # the answer is cut off
    assert data.encode_example(Letters(), template, "", [data.Turn("a", "b")], 6).labels[-1] == ord("b") % VOCABULARY


@pytest.mark.parametrize(
    ("row", "system", "turns"),
    [
        ({"prompt": "p", "response": "r"}, "", [("p", "r", True)]),
        ({"instruction": "i", "output": "o"}, "", [("i", "o", False)]),
        ({"instruction": "i", "input": "x", "output": "o"}, "", [("i\nx", "o", False)]),
        ({"conversations": ["q", "a", "more"]}, "", [("q", "a", False)]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "", [("q", "a", False)]),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                       {"role": "assistant", "content": "a"}]}, "s\n", [("q", "a", False)]),
    ],
)  # fmt: skip
def test_examples_are_read_in_their_forms(row, system, turns):
    found = data.turns_of(row, "here")
    assert found[0] == system
    assert [tuple(turn) for turn in found[1]] == turns


def test_files_are_lines_or_arrays_also_compressed(tmp_path):
    rows = [{"instruction": "i", "output": "one"}, {"instruction": "j", "output": "two"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    with lzma.open(tmp_path / "c.json.xz", "wt") as file:
        file.write(json.dumps(rows))
    found = [
        data.read_examples([tmp_path / name], Letters(), VICUNA, 999) for name in ("a.jsonl", "b.json", "c.json.xz")
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 2


def test_texts_are_joined_and_cut(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.jsonl").write_text('{"text": "defg"}\n')
    pieces = data.read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"], Letters(), 4, 0)
    ids = Letters()("abc\0defg\0")["input_ids"]
    assert [piece.ids.tolist() for piece in pieces] == [ids[:4], ids[4:8]]
    assert pieces[0].labels.tolist() == ids[:4]
    assert data.collate(pieces[:1])["input_ids"].tolist() == [ids[:4]]
    assert len(data.read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"], Letters(), 4, 6)) == 1


def test_a_batch_is_padded_and_shifted():
    batch = data.collate([data.Example([5, 6, 7], [-100, 6, 7]), data.Example([8, 9], [-100, 9])], padding=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["shift_labels"].tolist() == [[6, 7, -100], [9, -100, -100]]


def test_the_meter_counts_by_definition():
    model = random_model("qwen2_moe").train()
    ranks = torch.arange(NUM_EXPERTS) % 3
    meter = RoutingMeter(model, [ranks] * 3)
    chosen, logits = [], []

    def record(module, inputs, output):
        logits.append(output[0])
        chosen.append(output[2])

    for router in c2r.hf.routers.find_routers(model):
        router.module.register_forward_hook(record)
    ids = torch.randint(0, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    meter.mask = mask
    model(input_ids=ids, attention_mask=mask)
    real = mask.flatten().bool()
    copies, imbalance, balance = [], [], []
    for topk_idx, of_layer in zip(chosen, logits, strict=True):
        rows = topk_idx[real].tolist()
        copies.append(sum(len({expert % 3 for expert in row}) for row in rows) / len(rows))
        load = [sum(row.count(expert) for row in rows) for expert in range(NUM_EXPERTS)]
        imbalance.append(max(load) * NUM_EXPERTS / sum(load))
        probability = of_layer[real].softmax(-1).mean(0)
        balance.append(NUM_EXPERTS * sum(load[e] / sum(load) * probability[e].item() for e in range(NUM_EXPERTS)))
    found = meter.take()
    assert found["copies_per_token"] == pytest.approx(sum(copies) / 3)
    assert found["expert_imbalance"] == pytest.approx(sum(imbalance) / 3)
    assert found["balance_loss"] == pytest.approx(sum(balance) / 3, rel=1e-5)
    assert meter.take() == {}
    model.eval()(input_ids=ids)
    assert meter.take() == {}  # only training counts


@pytest.mark.parametrize(("family", "recipe"), [("qwen2_moe", "qwen"), ("llama_moe", "llama")])
def test_a_model_learns_and_every_choice_obeys(family, recipe, tmp_path):
    seen = []

    def obeys(model, inputs):
        lists = random_lists(TOP_T)
        for layer, topk_idx in zip(lists, CONSTRAINED[model].topk_idx, strict=True):
            for row in topk_idx.tolist():
                assert set(row[1:]) <= set(layer[row[0]])
                seen.append(row)
        return torch.zeros(())

    tuned(tmp_path / "out", family, recipe=recipe, penalty=obeys, max_steps=12, save_steps=12)
    log = trainer.read_log(tmp_path / "out" / "log.jsonl")
    assert [record["step"] for record in log] == list(range(1, 13))
    assert log[-1]["loss"] < log[0]["loss"] - 0.3
    assert all(1 <= record["copies_per_token"] <= TOP_K and record["expert_imbalance"] >= 1 for record in log)
    assert seen
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["top_t"] == TOP_T
    assert config["collaborative_list"] == random_lists(TOP_T)
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize(("family", "recipe"), [("qwen2_moe", "qwen"), ("llama_moe", "llama")])
def test_a_killed_run_continues_with_the_same_bits(family, recipe, tmp_path, monkeypatch):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    tuned(straight, family, recipe=recipe)

    def die(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.LogCallback, "on_step_end", die, raising=False)
        tuned(killed, family, recipe=recipe)
    assert not (killed / "config.json").exists()
    broken = killed / "checkpoints" / "checkpoint-6"  # one that the kill has cut off
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_st')
    tuned(killed, family, recipe=recipe)
    logs = [trainer.read_log(folder / "log.jsonl") for folder in (straight, killed)]
    assert logs[0] == logs[1]
    weights = [load_file(folder / "model.safetensors") for folder in (straight, killed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("balance_loss", "tolerance"), [(0.0, 1e-4), (0.5, 0.1)])
def test_micro_batches_leave_losses_as_they_are(balance_loss, tolerance, tmp_path):
    """Without balance loss up to rounding. With it up to what balance means in fewer tokens; it is a third of the loss,
    and one of every micro-batch in full would be four times that.
    """
    losses = []
    for micro_batch in (1, 4):
        folder = tmp_path / str(micro_batch)
        tuned(folder, micro_batch=micro_batch, balance_loss=balance_loss, max_steps=2)
        losses.append([record["loss"] for record in trainer.read_log(folder / "log.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)


def test_the_router_alone_is_trained(tmp_path):
    before = {name: parameter.detach().clone() for name, parameter in random_model("qwen2_moe").named_parameters()}
    model = tuned(tmp_path / "out", trained="router", checkpointing=False, max_steps=2, save_steps=2)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {f"model.layers.{layer}.mlp.gate.weight" for layer in range(3)}


def test_an_unconstrained_balance_loss_is_the_models(tmp_path):
    """One step: with a factor the loss is larger by factor * the model's own balance loss of free routing."""
    batch = data.collate(examples(4))
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = random_model("qwen2_moe").train()(**batch, output_router_logits=True).aux_loss.item()
    losses = []
    for factor in (0.0, 0.5):
        folder = tmp_path / str(factor)
        tuned(folder, lists=False, count=4, balance_loss=factor, micro_batch=4, max_steps=1, save_steps=1)
        losses.append(trainer.read_log(folder / "log.jsonl")[0]["loss"])
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_engine_scores_what_was_written(tmp_path):
    pytest.importorskip("c2r._c2r", reason="the program comes with the installed package: pip install .")
    model = tuned(tmp_path / "out", max_steps=2).eval()
    text = list(range(2, 30))
    (tmp_path / "tokens.jsonl").write_text(json.dumps(text) + "\n")
    program = pathlib.Path(c2r.__file__).with_name("c2r")
    done = subprocess.run(
        [program, "score", tmp_path / "out", "--tokens", tmp_path / "tokens.jsonl", "--dtype", "f32", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        table = model(torch.tensor([text])).logits[0, :-1].double().log_softmax(-1)
    expected = table.gather(1, torch.tensor(text[1:])[:, None]).sum().item()
    assert json.loads(done.stdout)["log_likelihood"] == pytest.approx(expected, rel=1e-4)


def test_memory_adds_up_on_a_small_model():
    model = random_model("qwen2_moe")
    sizes = dry_run.sizes_of(model)
    assert sizes.all == sum(parameter.numel() for parameter in model.parameters())
    assert sizes.experts == 3 * NUM_EXPERTS * 3 * 16 * 32
    assert (sizes.width, sizes.num_layers) == (16, 3)
    alone = dry_run.memory(sizes, RECIPES["qwen"], 1, 1)
    assert alone["state"] == 16 * sizes.all
    assert alone["gathered"] == 0
    assert dry_run.memory(sizes, RECIPES["qwen"], 4, 4)["state"] == 4 * sizes.all


REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "c2r-official"


@pytest.mark.parametrize(
    ("name", "billions", "top_t"), [("qwen1_5_moe_a2_7b", "14.316", 30), ("llama_moe_3_5b_2_8", "6.741", 5)]
)
def test_a_dry_run_knows_the_real_models(name, billions, top_t, capsys):
    config = REAL / f"{name}_config.json"
    if not config.exists():
        pytest.skip(f"{config} is not here")
    assert main([str(config), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"{billions} G parameters" in printed
    assert f"T = {top_t}" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{m}", "--data", "{d}"], "give -o FOLDER for the model"),
        (["{m}", "-o", "{o}"], "give --data or --text, one of the two"),
        (["{m}", "--data", "missing.jsonl", "-o", "{o}"], "there is no file missing.jsonl"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--set", "lerning_rate=1"],
         "there is no setting 'lerning_rate'; did you mean learning_rate?"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--set", "batch=many"], "batch is 'many', but must be of the type int"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--set", "batch=3", "--set", "micro_batch=2"],
         "batch = 3 sequences cannot be divided among 1 ranks with micro_batch = 2; set batch to a multiple of 2"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--set", "output_dir=x"], "output_dir cannot be set; use -o"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--set", "logging_steps=4", "--set", "save_steps=6"],
         "save_steps = 6 must be a multiple of logging_steps = 4, so that a continued run logs the same means"),
        (["{m}", "--data", "{d}", "-o", "{o}", "--ep", "2"], "--ep 2 must divide --fsdp 1"),
        (["{m}", "--data", "{bad}", "-o", "{o}"],
         ("{bad}:2: has the keys question, but an example has prompt and response, instruction and output, messages, or "
          "conversations")),
        (["{m}", "--data", "{cut}", "-o", "{o}"], "{cut}: is not JSON: Expecting value: line 1 column 9 (char 8)"),
    ],
)  # fmt: skip
def test_mistakes_are_explained_in_one_line(words, message, tmp_path, capsys):
    places = {
        "m": pathlib.Path(__file__).parents[2] / "models" / "nano-qwen-moe", "o": tmp_path / "out",
        "d": tmp_path / "d.jsonl", "bad": tmp_path / "bad.jsonl", "cut": tmp_path / "cut.jsonl",
    }  # fmt: skip
    row = json.dumps({"prompt": "p", "response": "r"}) + "\n"
    places["d"].write_text(row)
    places["bad"].write_text(row + '{"question": 1}\n')
    places["cut"].write_text('{"text":')
    assert main([word.format(**places) for word in words]) == 1
    assert capsys.readouterr().err == f"c2r.finetune: {message.format(**places)}\n"


def test_a_folder_of_another_run_is_refused(tmp_path):
    asked = settings()
    run.prepare_output(tmp_path / "out", asked, {})
    run.prepare_output(tmp_path / "out", asked, {})
    with pytest.raises(ValueError, match="was begun with training.learning_rate = 0.003, not 0.1"):
        run.prepare_output(tmp_path / "out", settings(learning_rate=0.1), {})
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has a model that is trained already"):
        run.prepare_output(tmp_path / "out", asked, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("")
    with pytest.raises(ValueError, match="is not empty, and not of a run"):
        run.prepare_output(tmp_path / "other", asked, {})


def test_a_rank_accepts_the_folder_while_the_first_one_writes_it(tmp_path, monkeypatch):
    output, asked, others = tmp_path / "out", settings(), []
    replace = os.replace

    def look(*paths):  # as another rank, just before and just after the file gets its name
        with monkeypatch.context() as patch:
            patch.setattr(run, "is_first_rank", lambda: False)
            run.prepare_output(output, asked, {})
            replace(*paths)
            run.prepare_output(output, asked, {})
        others.append(True)

    monkeypatch.setattr(os, "replace", look)
    run.prepare_output(output, asked, {})
    assert others == [True]


def train_spread(rank, start, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": "29531"}  # fmt: skip
    tuned(folder, start=start, spread=run.Spread(2, 2), micro_batch=1, max_steps=3)


def test_a_spread_model_has_the_losses_of_one_process(tmp_path):
    """FSDP2 and expert parallelism on 2 ranks against one process: sums in another order."""
    start = tmp_path / "start"
    model = random_model("qwen2_moe")
    model.config.eos_token_id = 1
    model.save_pretrained(start)
    run_ranks(2, train_spread, start, tmp_path / "spread", timeout_s=240)
    tuned(tmp_path / "alone", start=start, micro_batch=1, max_steps=3)
    logs = [trainer.read_log(tmp_path / name / "log.jsonl") for name in ("spread", "alone")]
    for spread, alone in zip(*logs, strict=True):
        assert spread["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert spread["expert_imbalance"] == pytest.approx(alone["expert_imbalance"], rel=0.02)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("spread", "alone")]
    assert weights[0].keys() == weights[1].keys()
    begun = load_file(start / "model.safetensors")
    for name, value in weights[1].items():
        # Adam's steps are of the learning rate's size whatever the gradient's, so where that is nearly zero they differ.
        assert (weights[0][name] - value).abs().mean() <= 0.1 * (value - begun[name]).abs().mean() + 1e-7, name
