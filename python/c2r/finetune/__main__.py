"""python -m c2r.finetune: fine-tunes a Mixture-of-Experts model whose routing obeys collaborator lists."""

import argparse
import pathlib
import sys
from typing import Any

from c2r._command import run_command
from c2r.finetune.settings import RECIPES, Settings, read_value, with_values

EXAMPLES = """\
recipes (--recipe; the paper's two, and one for plain text; every value can be changed by --set):
  qwen   batch 64, learning rate 2e-5, cosine after 10 warm-up steps, 2 epochs, 2048 tokens; no balance loss;
         the prompt of DeepSeek-MoE's fine-tuning. The default for every family but LLaMA-MoE.
  llama  batch 128, 3 % warm-up, gate noise, balance loss 0.01, else as qwen; the prompt of Vicuna. For LLaMA-MoE.
  text   continued training on all tokens of plain text, 1 epoch. The default with --text.
settings (--set KEY=VALUE, several times):
  batch, micro_batch, length     sequences of a step, sequences that a rank computes at a time, tokens of a sequence
  balance_loss, gate_noise       factor of the balance loss; noise on the gate's logits in training (LLaMA-MoE)
  trained=router                 trains the routers alone
  max_tokens                     of --text that are read; 0 is all
  checkpointing=false, bf16      keep activations instead of recomputing them; products in bfloat16 (default on a GPU)
  template.system, .user, .answer, .end     texts around questions and answers; {} is the question or the answer
  and every field of transformers.TrainingArguments: learning_rate, max_steps, save_steps, logging_steps, seed, ...
data (--data; *.jsonl with one example a line or *.json with an array, also as .xz or .zst), in any of these forms:
  {"prompt": ..., "response": ...}           a prompt as it is, without the recipe's template
  {"instruction": ..., "output": ...}        also with "input"
  {"messages": [{"role": ..., "content": ...}, ...]}, {"conversations": [...]} as of ShareGPT or LIMA
a run that was killed goes on from its last checkpoint when the same command is given again, with the same losses.
-o gets the model, the tokenizer, log.jsonl (loss, balance, expert imbalance, copies per token) and finetune.json (settings).
examples:
  c2r profile MODEL --text text.txt -o trace.safetensors
  c2r plan trace.safetensors --cluster 1x4 --top-t 30 -o plan.json
  python -m c2r.finetune MODEL --data sft.jsonl --plan plan.json -o tuned
  python -m c2r.finetune MODEL --data sft.jsonl --lists lists.json --top-t 8 --set max_steps=100 -o tuned
  python -m c2r.finetune MODEL --text corpus.jsonl --set length=1024 --set max_tokens=1000000 -o tuned
  torchrun --nproc-per-node 4 -m c2r.finetune MODEL --data sft.jsonl --plan plan.json --fsdp 4 --ep 4 -o tuned
  python -m c2r.finetune MODEL/config.json --dry-run
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m c2r.finetune", description=__doc__.split(": ", 1)[1], epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("model", type=pathlib.Path, metavar="MODEL", help="a folder of transformers; for --dry-run also a config.json")
    add("--data", type=pathlib.Path, nargs="+", default=[], metavar="FILE", help="examples with answers, see below")
    add("--text", type=pathlib.Path, nargs="+", default=[], metavar="FILE",
        help='plain text, or {"text": ...} a line in *.jsonl')  # fmt: skip
    add("--plan", type=pathlib.Path, metavar="FILE",
        help="a plan of c2r plan: its lists constrain the routing, and its placement counts the log's copies per token")  # fmt: skip
    add("--lists", type=pathlib.Path, metavar="FILE",
        help="lists of c2r collaborators, or another model's config.json; without --plan and --lists those of the model's"
        " own config, and without any the routing is free")  # fmt: skip
    add(
        "--top-t",
        type=_top_t,
        metavar="T",
        help="use the first T of each list; several, with commas: one for each layer",
    )
    add(
        "-o", "--output", type=pathlib.Path, metavar="FOLDER", help="for the model, and for what continues a killed run"
    )
    add("--recipe", choices=list(RECIPES), help="named defaults, see below")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, see below")
    add("--fsdp", type=int, metavar="N", help="shard parameters over the N ranks that torchrun starts (FSDP2)")
    add("--ep", type=int, metavar="N", help="spread the experts over N ranks; a divisor of --fsdp")
    add("--exchange", default="c2r", choices=["c2r", "c2r_per_expert", "all_to_all"],
        help="how tokens reach experts of other ranks: once per rank (default), once per expert, or transformers' own")  # fmt: skip
    add("--dry-run", action="store_true",
        help="load no weights and train nothing: print names, shapes, lists, and memory per GPU")  # fmt: skip
    return parser


def _top_t(text: str) -> int | list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, and no such numbers with commas") from None
    return found[0] if len(found) == 1 else found


def recipe_of(arguments: argparse.Namespace, model_type: str) -> str:
    return arguments.recipe or ("text" if arguments.text else "llama" if model_type == "llama_moe" else "qwen")


def settings_of(arguments: argparse.Namespace, recipe: str) -> Settings:
    values: dict[str, Any] = {}
    for pair in arguments.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, not '{pair}'")
        values[key] = read_value(value)
    return with_values(RECIPES[recipe], values)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.plan and arguments.lists:
        raise ValueError("give --plan or --lists, not both")
    for files in (arguments.data, arguments.text, [arguments.model], [arguments.plan or arguments.model],
                  [arguments.lists or arguments.model]):  # fmt: skip
        for path in files:
            if not path.exists():
                raise ValueError(f"there is no file {path}")
    if arguments.dry_run:
        return
    if bool(arguments.data) == bool(arguments.text):
        raise ValueError("give --data or --text, one of the two")
    if (arguments.recipe == "text") != bool(arguments.text) and arguments.recipe:
        raise ValueError(f"--recipe {arguments.recipe} is for {'--text' if arguments.recipe == 'text' else '--data'}")
    if arguments.output is None:
        raise ValueError("give -o FOLDER for the model")


def _finetune(arguments: argparse.Namespace) -> None:
    import torch
    import transformers

    from c2r.finetune import data, run

    config = transformers.AutoConfig.from_pretrained(arguments.model)
    settings = settings_of(arguments, recipe_of(arguments, config.model_type))
    spread = run.Spread(arguments.fsdp or 1, arguments.ep or 1, arguments.exchange)
    if spread.fsdp < 1 or spread.ep < 1 or spread.fsdp % spread.ep:
        raise ValueError(f"--ep {spread.ep} must divide --fsdp {spread.fsdp}")
    settings.accumulation(run.num_ranks())  # refuses what cannot be divided before anything is loaded
    inputs = {
        "model": arguments.model.resolve(), "data": arguments.data, "text": arguments.text, "plan": arguments.plan,
        "lists": arguments.lists, "top_t": arguments.top_t, "num_ranks": run.num_ranks(), "spread": spread._asdict(),
    }  # fmt: skip
    run.prepare_output(arguments.output, settings, run.as_plain(inputs))
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    if arguments.text:
        examples = data.read_texts(arguments.text, tokenizer, settings.length, settings.max_tokens)
        num_left_out = 0
    else:
        examples, num_left_out = data.read_examples(arguments.data, tokenizer, settings.template, settings.length)
    run.say(f"{len(examples)} sequences, {sum(len(example.ids) for example in examples)} tokens"
            + (f"; {num_left_out} examples left out, whose answer is beyond {settings.length} tokens"
               if num_left_out else ""))  # fmt: skip

    def load(checkpoint: pathlib.Path | None) -> Any:
        model = run.load_model(checkpoint or arguments.model, spread)
        run.say(run.constrain(model, arguments.plan or arguments.lists, arguments.top_t))
        run.apply_settings(model, settings)
        return model

    run.train(load, tokenizer, examples, settings, arguments.output, dtype=config.dtype or torch.float32,
              ranks_of=lambda model: run.ranks_to_count(model, arguments.plan, spread))  # fmt: skip
    run.say(f"{arguments.output}: the model, its tokenizer and log.jsonl")


def _silence() -> None:
    """transformers says nothing but errors, and shows no bars."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _work(arguments: argparse.Namespace) -> None:
    _silence()
    _check(arguments)
    if arguments.dry_run:
        from c2r.finetune.dry_run import dry_run

        print(dry_run(arguments.model, arguments.plan or arguments.lists, arguments.top_t,
                      lambda recipe: settings_of(arguments, recipe)))  # fmt: skip
    else:
        _finetune(arguments)


def main(words: list[str] | None = None) -> int:
    arguments = make_parser().parse_args(words)
    return run_command("c2r.finetune", "finetune", lambda: _work(arguments), (OSError, ValueError, RuntimeError))


if __name__ == "__main__":
    sys.exit(main())
