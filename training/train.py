"""Trains one model, from a prepared corpus to a model folder with its card.

  python3 -m training.train training/configs/nano-qwen-moe.toml

Interrupted, or stopped by --minutes, it goes on where its last checkpoint was when the same command is given again.
Exit status: 0 when the model is written, 3 when --minutes ran out, 1 if something is wrong.
"""

import argparse
import dataclasses
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import torch
from tokenizers import Tokenizer

from training.batches import Corpus, read_corpus
from training.card import write_card
from training.config import Config, read_config
from training.evaluate import evaluate, write_on
from training.files import new_folder
from training.model import num_active_parameters
from training.published import load_weights, save_model
from training.run_log import RunLog
from training.tokenizer import write_tokenizer
from training.trainer import StepResult, Trainer

PAUSED = 3
CHECKPOINT_SECONDS = 120
EVALUATION_BATCHES = 1  # of each domain, while training; all of them at the end
PROMPTS = ("once upon a time", "The old man looked at the sea and", "In this section you will learn", "#include <")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def describe_machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit of this tree, or nothing outside a repository."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parent,
    )
    return done.stdout.strip()


def start(trainer: Trainer, log: RunLog, facts: dict, command: str) -> None:
    """Logs what this piece of the run is made of."""
    model = trainer.model
    log.add(
        "start",
        trainer.step,
        config=dataclasses.asdict(trainer.config),
        data=facts,
        commit=commit(),
        machine=describe_machine(trainer.device),
        torch=torch.__version__,
        grouped_matmul=trainer.matmul.__name__,
        grouped_matmul_reason=trainer.matmul_reason,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_active_parameters=num_active_parameters(model),
        command=command,
    )
    say(
        f"{trainer.config.name}: step {trainer.step} of {trainer.config.num_steps} on {describe_machine(trainer.device)}, "
        f"expert products by {trainer.matmul.__name__} {trainer.matmul_reason}"
    )


def train(trainer: Trainer, log: RunLog, corpus: Corpus, checkpoint: pathlib.Path, deadline: float) -> bool:
    """Steps until the budget of tokens is spent (true), or until as many steps as lie between two lines of the log
    would end after `deadline` if they took as long as the last ones (false)."""
    config, training = trainer.config, trainer.config.training
    mark, mark_step, saved = time.monotonic(), trainer.step, time.monotonic()
    cpu_mark = time.process_time()
    while trainer.step < config.num_steps:
        result = trainer.train_step()
        if trainer.step % training.log_steps == 0 or trainer.step == config.num_steps:
            loss = result.loss.item()  # waits for the device
            now = time.monotonic()
            trainer.seconds += now - mark
            trainer.cpu_seconds += time.process_time() - cpu_mark
            report(trainer, log, result, loss, (trainer.step - mark_step) * config.step_tokens / (now - mark))
            if trainer.step % training.evaluation_steps == 0:
                log.add(
                    "evaluation",
                    trainer.step,
                    **evaluate(trainer.model, corpus, training.batch_sequences, EVALUATION_BATCHES),
                )
            now = time.monotonic()
            is_late = now + (now - mark) > deadline  # the next steps, or what follows the last, take time as well
            if is_late or now > saved + CHECKPOINT_SECONDS:
                trainer.save(checkpoint)
                saved = time.monotonic()
            if is_late:
                return False
            mark, mark_step, cpu_mark = time.monotonic(), trainer.step, time.process_time()
    trainer.save(checkpoint)
    return True


def report(trainer: Trainer, log: RunLog, result: StepResult, loss: float, tokens_per_s: float) -> None:
    """Logs and prints one line of progress."""
    config, tokens = trainer.config, trainer.step * trainer.config.step_tokens
    left_s = (config.num_steps - trainer.step) * config.step_tokens / tokens_per_s
    log.add(
        "step",
        trainer.step,
        tokens=tokens,
        loss=loss,
        balance_loss=result.balance_loss.item(),
        gradient_norm=result.gradient_norm.item(),
        tokens_per_s=round(tokens_per_s),
        seconds=round(trainer.seconds, 1),
    )
    say(
        f"step {trainer.step:6}/{config.num_steps}  {tokens / 1e6:7.1f} M tokens  loss {loss:.4f}  "
        f"balance {result.balance_loss.item():.3f}  {tokens_per_s / 1e6:.4f} M tokens/s  {left_s / 60:.1f} min left"
    )
    if not loss < float("inf"):
        raise ValueError(f"the loss is {loss} at step {trainer.step}; lower learning_rate or raise warmup_steps")


def finish(
    trainer: Trainer, log: RunLog, corpus: Corpus, tokenizer: Tokenizer, run: pathlib.Path, output: pathlib.Path
) -> None:
    """Writes the model folder, and evaluates the weights that were saved, which are rounded to bf16."""
    with new_folder(output) as folder:
        save_model(trainer.model, folder)
        write_tokenizer(tokenizer, folder, trainer.config.model.max_tokens)
        with torch.no_grad():
            load_weights(trainer.model, folder)
        final = evaluate(trainer.model, corpus, trainer.config.training.batch_sequences)
        samples = [write_on(trainer.model, tokenizer, prompt, 100, 0.8, seed=1) for prompt in PROMPTS]
        times = {"seconds": trainer.seconds, "cpu_seconds": trainer.cpu_seconds}
        log.add("finish", trainer.step, **times, samples=samples, **final)
        write_card(run / "log.jsonl", folder / "README.md")
        shutil.copyfile(run / "log.jsonl", folder / "log.jsonl")
    say(f"wrote {output}")


def run_training(
    config: Config,
    corpus_folder: pathlib.Path,
    run: pathlib.Path,
    output: pathlib.Path,
    minutes: float,
    is_eager: bool,
    command: str = "",
) -> int:
    """Trains `config`, from its checkpoint in `run` if there is one. Returns the exit status. The card gives `command`,
    the file of the configuration, as what to train it with."""
    deadline = time.monotonic() + minutes * 60
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = read_corpus(corpus_folder / "corpus.xz")
    tokenizer = Tokenizer.from_file(str(corpus_folder / "tokenizer.json"))
    if tokenizer.get_vocab_size() != config.model.vocab_size:
        raise ValueError(
            f"{corpus_folder}/tokenizer.json has {tokenizer.get_vocab_size()} tokens, "
            f"but vocab_size = {config.model.vocab_size}"
        )
    trainer = Trainer(config, corpus, device, compile_blocks=device.type == "cuda" and not is_eager)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    log = RunLog(run / "log.jsonl", trainer.step)
    start(trainer, log, corpus.facts, command)
    if not train(trainer, log, corpus, checkpoint, deadline):
        say(f"paused at step {trainer.step} of {config.num_steps}; the same command goes on from there")
        return PAUSED
    finish(trainer, log, corpus, tokenizer, run, output)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = {"type": pathlib.Path, "metavar": "FOLDER"}
    parser.add_argument("config", type=pathlib.Path, metavar="CONFIG", help="a file of training/configs")
    parser.add_argument("--corpus", default="build/training/corpus", help="from training.prepare (%(default)s)", **path)
    parser.add_argument("--run", help="checkpoint and log (build/training/NAME)", **path)
    parser.add_argument("-o", "--output", help="the model folder, written at the end (models/NAME)", **path)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), metavar="M",
        help="save and stop before that time; what follows the last step is not counted",
    )  # fmt: skip
    parser.add_argument("--eager", action="store_true", help="do not use torch.compile on a GPU")
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
        run = arguments.run or pathlib.Path("build/training") / config.name
        output = arguments.output or pathlib.Path("models") / config.name
        command = str(arguments.config)
        sys.exit(run_training(config, arguments.corpus, run, output, arguments.minutes, arguments.eager, command))
    except (OSError, ValueError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
