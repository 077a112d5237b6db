"""Training learns, resumes exactly, and leaves a model that others read alike."""

import copy
import dataclasses
import json
import math
import pathlib
import sys
import types

import pytest
import torch

from training import published, train
from training.batches import write_corpus
from training.conftest import MODELS
from training.evaluate import evaluate
from training.experts import torch_grouped
from training.model import Decoder
from training.reference_llama_moe import ReferenceLlamaMoe
from training.run_log import RunLog, read_log
from training.tokenizer import train_tokenizer
from training.train import PAUSED, main, run_training
from training.trainer import Trainer, learning_rate

CPU = torch.device("cpu")
TEXTS = [" ".join(f"{a}{b} {b}{a}" for a in "abcdefghij" for b in "klmnopqrst")] * 2


def losses(trainer: Trainer, num_steps: int) -> list[float]:
    return [trainer.train_step().loss.item() for _ in range(num_steps)]


def test_the_loss_falls(config, corpus):
    training = dataclasses.replace(config.training, num_tokens=60 * config.step_tokens)
    trainer = Trainer(dataclasses.replace(config, training=training), corpus, CPU, compile_blocks=False)
    before = evaluate(trainer.model, corpus, 4)["losses"]
    values = losses(trainer, 60)
    after = evaluate(trainer.model, corpus, 4)["losses"]
    assert values[0] == pytest.approx(math.log(320), abs=0.2)  # nothing known: ln(vocab_size)
    assert all(after[domain] < before[domain] - 1 for domain in corpus.domains)


def test_a_step_follows_the_clipped_gradient_of_both_losses(config, corpus):
    training = dataclasses.replace(config.training, balance_loss_weight=3.0, max_gradient_norm=0.05)
    trainer = Trainer(dataclasses.replace(config, training=training), corpus, CPU, compile_blocks=False)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters())  # unlike AdamW's, its step shows the norm
    before = copy.deepcopy(trainer.model)
    result = trainer.train_step()

    batch = torch.from_numpy(trainer.batches.at(0).astype("int64"))
    torch.manual_seed(training.seed * 1_000_003)  # the gates' noise
    output = before(batch[:, :-1])
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), batch[:, 1:].flatten())
    balance_loss = sum((routing.balance_loss for routing in output.routings), torch.zeros(()))
    gradient = torch.autograd.grad(loss + 3.0 * balance_loss, list(before.parameters()), materialize_grads=True)
    norm = float(torch.cat([part.flatten() for part in gradient]).double().norm())
    assert norm > 2 * 0.05  # else nothing is clipped
    torch.testing.assert_close(result.loss, loss.detach())
    assert float(result.balance_loss) == pytest.approx(balance_loss.item(), rel=2**-20)
    assert float(result.gradient_norm) == pytest.approx(norm, rel=2**-18)
    step = learning_rate(0, trainer.config) * 0.05 / norm
    for part, old, new in zip(gradient, before.parameters(), trainer.model.parameters()):
        torch.testing.assert_close(new.detach(), (old - step * part).detach(), rtol=0, atol=2**-22)


def test_the_learning_rate_rises_and_falls_and_every_step_has_its_own(config, corpus):
    training = dataclasses.replace(config.training, learning_rate=0.5, warmup_steps=4, final_learning_rate=0.2)
    config = dataclasses.replace(config, training=training)
    assert config.num_steps == 16  # so the cosine begins at step 4, is half way at 10, and would end at 16
    expected = {0: 0.125, 1: 0.25, 3: 0.5, 4: 0.5, 7: 0.1 + 0.4 * (0.5 + 0.5 / math.sqrt(2)), 10: 0.3, 16: 0.1}
    assert {step: learning_rate(step, config) for step in expected} == pytest.approx(expected)
    assert 0.1 < learning_rate(15, config) < 0.11
    trainer = Trainer(config, corpus, CPU, compile_blocks=False)
    for step in range(2):
        trainer.train_step()
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {learning_rate(step, config)}


def test_a_resumed_run_has_the_losses_of_a_straight_one(config, corpus, tmp_path):
    straight = losses(Trainer(config, corpus, CPU, False), 12)
    first = Trainer(config, corpus, CPU, False)
    assert losses(first, 5) == straight[:5]
    first.save(tmp_path / "checkpoint.pt")
    resumed = Trainer(config, corpus, CPU, False)
    resumed.load(tmp_path / "checkpoint.pt")
    assert losses(resumed, 7) == straight[5:]


def test_a_checkpoint_of_another_configuration_is_refused(config, corpus, tmp_path):
    Trainer(config, corpus, CPU, False).save(tmp_path / "checkpoint.pt")
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=1.0))
    with pytest.raises(ValueError, match="made with another configuration"):
        Trainer(other, corpus, CPU, False).load(tmp_path / "checkpoint.pt")


def random_model(family: str) -> Decoder:
    """Weights large enough that every part of the model shows in the logits, biases and norms included."""
    torch.manual_seed(1)
    model = Decoder(MODELS[family]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            parameter.copy_(parameter.bfloat16())
    return model


# Two layers of float32 products of at most 192 terms, in different orders: a few hundred roundings of 2^-24 of
# values below 2^5 stay below 2^-10 of the logits' unit.
LOGITS = {"rtol": 0, "atol": 2**-10}


@pytest.mark.parametrize("family, architecture", [("qwen2_moe", "Qwen2MoeForCausalLM"), ("qwen2", "Qwen2ForCausalLM")])
def test_a_saved_model_has_the_same_logits_in_transformers(family, architecture, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = random_model(family)
    published.save_model(model, tmp_path)
    theirs, loading = getattr(transformers, architecture).from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading.values()), loading
    tokens = torch.randint(0, 320, (3, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, theirs(tokens).logits, **LOGITS)
    theirs.save_pretrained(tmp_path / "again")  # with the keys of transformers 5
    with torch.no_grad():
        assert torch.equal(published.load_model(tmp_path / "again")(tokens).logits, model(tokens).logits)


def test_a_saved_llama_moe_has_the_logits_of_the_reference(tmp_path):
    model = random_model("llama_moe")
    published.save_model(model, tmp_path)
    tokens = torch.randint(0, 320, (16,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, reference = model(tokens.unsqueeze(0)).logits[0], ReferenceLlamaMoe(tmp_path).logits(tokens.tolist())
    torch.testing.assert_close(ours, reference, **LOGITS)


@pytest.mark.parametrize("family", MODELS)
def test_a_saved_model_is_read_back_whole(family, tmp_path):
    model = random_model(family)
    published.save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    again = published.load_model(tmp_path)
    assert again.config == model.config
    for name, parameter in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], parameter), name


def test_a_block_compiles_whole_and_once_for_all_layers():
    """What the GPU runs: bf16 autocast, one graph without breaks. (The backend here generates no code.)"""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(1)
    model = Decoder(MODELS["llama_moe"], torch_grouped).train()
    for layer in model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randint(0, 320, (4, 16))).logits.float().square().mean().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_the_command_pauses_goes_on_and_writes_model_and_card(config, corpus, tmp_path):
    prepared, run, output = tmp_path / "corpus", tmp_path / "run", tmp_path / "models" / "tiny"
    prepared.mkdir()
    train_tokenizer(TEXTS, vocab_size=320).save(str(prepared / "tokenizer.json"))
    write_corpus(prepared / "corpus.xz", corpus.tokens, json.dumps(corpus.facts))

    assert run_training(config, prepared, run, output, minutes=0, is_eager=True, command="a/tiny.toml") == PAUSED
    assert not output.exists()
    assert run_training(config, prepared, run, output, minutes=1e9, is_eager=True) == 0
    steps = [record["step"] for record in read_log(run / "log.jsonl") if record["event"] == "step"]
    assert steps == list(range(1, 17))
    card = (output / "README.md").read_text()
    assert "python3 -m training.train a/tiny.toml\n" in card
    assert "2 pieces" in card and ("unused experts" in card) == config.model.is_moe
    assert {path.name for path in output.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "log.jsonl", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json"}  # fmt: skip


def test_a_run_stops_before_its_time_is_over(config, corpus, tmp_path, monkeypatch):
    trainer, log = Trainer(config, corpus, CPU, False), RunLog(tmp_path / "log.jsonl", first_step=0)
    clock = types.SimpleNamespace(monotonic=lambda: 10.0 * trainer.step, process_time=lambda: 5.0 * trainer.step)
    monkeypatch.setattr(train, "time", clock)
    assert not train.train(trainer, log, corpus, tmp_path / "checkpoint.pt", deadline=45.0)  # after 40, 50 comes
    seconds = [record["seconds"] for record in read_log(tmp_path / "log.jsonl")]
    assert seconds == [10.0, 20.0, 30.0, 40.0] and trainer.cpu_seconds == 20.0
    assert train.train(trainer, log, corpus, tmp_path / "checkpoint.pt", deadline=1e9) and trainer.step == 16


def test_a_log_continued_from_a_checkpoint_forgets_what_came_after(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", first_step=0)
    for step in range(1, 6):
        log.add("step", step)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "st')  # a kill
    RunLog(tmp_path / "log.jsonl", first_step=3).add("step", 4)
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    (tmp_path / "log.jsonl").write_text("no record\n")
    with pytest.raises(ValueError, match=r"log.jsonl is no log of a run: Expecting value"):
        read_log(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    "content, message",
    [
        ("[model]\nfamily = 'qwen3'\n", "bad.toml: "),
        ("[model\n", "bad.toml: "),
        (None, "No such file"),
    ],
)
def test_a_bad_configuration_is_one_line(content, message, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "bad.toml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "bad.toml")])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code.startswith("train: ") and message in exit.value.code and "\n" not in exit.value.code


def test_the_configuration_is_logged_as_the_command_wherever_it_stands(monkeypatch):
    seen, config = [], str(pathlib.Path(train.__file__).parent / "configs" / "nano-llama-moe.toml")
    monkeypatch.setattr(train, "run_training", lambda *arguments: seen.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["train", "--minutes", "9", config])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0 and seen[0][-1] == config


def test_a_tokenizer_of_another_size_is_refused(config, corpus, tmp_path):
    train_tokenizer(TEXTS, vocab_size=300).save(str(tmp_path / "tokenizer.json"))
    write_corpus(tmp_path / "corpus.xz", corpus.tokens, json.dumps(corpus.facts))
    with pytest.raises(ValueError, match="has 300 tokens, but vocab_size = 320"):
        run_training(config, tmp_path, tmp_path / "run", tmp_path / "out", minutes=1, is_eager=True)
