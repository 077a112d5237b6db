"""python -m c2r.evaluate: accuracies of a model on ten tasks and LAMBADA, by lm-evaluation-harness, offline."""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

from c2r._command import run_command

EPILOG = """\
tasks: arc_challenge, arc_easy, boolq, hellaswag, lambada_openai, logiqa, openbookqa, piqa, rte, sciq, winogrande.
Prompts and metrics are those of lm-evaluation-harness 0.4.13, without examples in the prompt. FOLDER of --data has
their documents: arc_easy.jsonl, lambada.jsonl, ..., one a line with the fields of the data set on Hugging Face.
The routing obeys the lists of --plan, or else those of the model's config.json, on both engines.
examples:
  python -m c2r.evaluate tuned --data eval --tasks all -o tuned.json
  python -m c2r.evaluate tuned --data eval --tasks piqa,lambada_openai --limit 200 --engine transformers
  python -m c2r.evaluate tuned --data eval --plan plan.json --ranks 4 --c2r build/release/c2r
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m c2r.evaluate", description=__doc__.split(": ", 1)[1], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("model", type=pathlib.Path, metavar="MODEL", help="a folder of transformers")
    add("--data", type=pathlib.Path, required=True, metavar="FOLDER", help="documents of the tasks, see below")
    add("--tasks", default="all", metavar="NAMES", help="all (default), or names with commas")
    add("--limit", type=int, metavar="N", help="the first N documents of each task; by default all")
    add("--engine", default="c2r", choices=["c2r", "transformers"], help="what runs the model (default c2r)")
    add("--plan", type=pathlib.Path, metavar="FILE", help="a plan: its lists, and on several ranks its placement")
    add("--ranks", type=int, default=1, metavar="N", help="run c2r on N ranks, by mpirun")
    add("--dtype", default="bf16", choices=["bf16", "f32"], help="of the arithmetic (default bf16)")
    add("--threads", type=int, metavar="N", help="of each rank; by default all processors")
    add("--batch", type=int, default=8, metavar="N", help="sequences that transformers runs at once (default 8)")
    add(
        "--c2r",
        type=pathlib.Path,
        metavar="PROGRAM",
        help="the program; by default the one of this package, or of PATH",
    )
    add("-o", "--output", type=pathlib.Path, metavar="FILE", help="also write all metrics as JSON")
    return parser


def _model_of(arguments: argparse.Namespace) -> Any:
    if arguments.engine == "c2r":
        from c2r.lm_eval import C2rLM

        return C2rLM(str(arguments.model), plan=arguments.plan, dtype=arguments.dtype, ranks=arguments.ranks,
                     threads=arguments.threads, program=arguments.c2r)  # fmt: skip
    if arguments.ranks > 1:
        raise ValueError("--ranks is for --engine c2r")
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    import c2r.hf
    import c2r.hf.llama_moe

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype)
    if arguments.plan is not None or getattr(model.config, "collaborative_list", None) is not None:
        c2r.hf.constrain(model, arguments.plan)
    if torch.cuda.is_available():
        model.cuda()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=arguments.batch)


def evaluate(model: Any, names: list[str], folder: pathlib.Path, limit: int | None = None) -> dict[str, dict]:
    """The metrics of each task, as the harness names them ("acc", "acc_stderr", ...), and "documents".

    model: of lm-evaluation-harness.
    """
    import lm_eval

    from c2r.evaluate.tasks import task_config

    tasks = [task_config(name, folder) for name in names]
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, limit=limit, bootstrap_iters=100, log_samples=False)
    result = {}
    for name in names:
        metrics = {key.removesuffix(",none"): value for key, value in found["results"][name].items()}
        metrics = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
        result[name] = {"documents": found["n-samples"][name]["effective"]} | metrics
    return result


def table(results: dict[str, dict]) -> str:
    lines = [f"{'task':<16}{'documents':>10}  {'metric':<12}{'value':>9}  {'std. error':>10}"]
    for name, metrics in results.items():
        for key in metrics:
            if key not in ("documents", "sample_len") and not key.endswith("_stderr"):
                error = metrics.get(f"{key}_stderr")
                shown = "" if error is None else f"{error:.4f}"
                lines.append(f"{name:<16}{metrics['documents']:>10}  {key:<12}{metrics[key]:>9.4f}  {shown:>10}")
    return "\n".join(lines)


def _work(arguments: argparse.Namespace) -> None:
    if not (arguments.model / "config.json").is_file():
        raise ValueError(f"{arguments.model} is not a folder with a model")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit is {arguments.limit}, but must be at least 1")
    from c2r.evaluate.tasks import check_documents, names_of

    names = names_of(arguments.tasks)
    for name in names:  # what is missing is said before a model is loaded
        check_documents(name, arguments.data)
    results = evaluate(_model_of(arguments), names, arguments.data, arguments.limit)
    print(table(results))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


def main(words: list[str] | None = None) -> int:
    arguments = make_parser().parse_args(words)
    os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    return run_command("c2r.evaluate", "eval", lambda: _work(arguments))


if __name__ == "__main__":
    sys.exit(main())
