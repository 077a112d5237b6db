"""The model card: every figure is taken from the run's log.

python3 -m training.card build/training/nano-qwen-moe/log.jsonl models/nano-qwen-moe/README.md

A third path, the log of the dense control, adds a comparison with it; the log is kept beside the card.
"""

import math
import pathlib
import shutil
import sys

from training.files import new_file
from training.run_log import read_log

FAMILIES = {
    "qwen2_moe": "Qwen2-MoE: {num_experts} experts, top-{top_k}, and a shared expert",
    "llama_moe": "LLaMA-MoE: {num_experts} experts, top-{top_k}, two-layer tanh gate, scale factor {score_scale}",
    "qwen2": "Qwen2, dense: the control of the MoE models",
}


def is_in_transformers(family: str) -> bool:
    return family != "llama_moe"


def header(family: str) -> str:
    """The front matter that model hubs read."""
    library = "library_name: transformers\n" if is_in_transformers(family) else ""
    return f"---\nlicense: apache-2.0\n{library}pipeline_tag: text-generation\n---\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def curve(records: list[dict], num_rows: int = 12) -> str:
    """Losses while training at `num_rows` places, evenly spread; each is the mean of the batches that were logged since
    the place before."""
    rows, start = [], 0
    for row in range(1, num_rows + 1):
        end = row * len(records) // num_rows
        if part := records[start:end]:
            means = (sum(record[key] for record in part) / len(part) for key in ("loss", "balance_loss"))
            rows.append([f"{part[-1]['tokens'] / 1e6:.1f}", *(f"{mean:.3f}" for mean in means)])
        start = end
    return table(["M tokens", "loss, nats/token", "balance loss, sum over layers"], rows)


def held_out(losses: dict[str, float], data: dict) -> str:
    """Perplexity and bits per byte of each domain."""
    rows = []
    for domain, loss in losses.items():
        split = data[domain]["held_out"]
        if loss is not None:
            bits = loss / math.log(2) * split["tokens"] / split["utf8_bytes"]
            rows.append([domain, f"{split['documents']}", f"{loss:.3f}", f"{math.exp(loss):.2f}", f"{bits:.3f}"])
    return table(["domain", "documents", "loss, nats/token", "perplexity", "bits per byte"], rows)


def mean_loss(losses: dict[str, float], data: dict) -> float:
    """Nats per token of all held-out text."""
    tokens = {domain: data[domain]["held_out"]["tokens"] for domain, loss in losses.items() if loss is not None}
    return sum(losses[domain] * count for domain, count in tokens.items()) / sum(tokens.values())


TOKENS_AND_LEARNING_RATE = (
    "num_tokens", "batch_sequences", "seed", "learning_rate", "warmup_steps", "final_learning_rate"
)  # fmt: skip


def batches_seen(log: list[dict]) -> dict:
    """All that decides which tokens a run sees, in which order, and at which learning rate."""
    config = log[0]["config"]
    return {
        "data": log[0]["data"],
        "max_tokens": config["model"]["max_tokens"],
        **{key: config["training"][key] for key in TOKENS_AND_LEARNING_RATE},
    }


def against(log: list[dict], control: list[dict]) -> str:
    """Perplexity beside the dense control's: of all held-out text, or, if the control's run was cut short, of what
    both evaluated last after the same step. @raises ValueError if it does not see the same tokens."""
    if not control:
        raise ValueError("the control's log is empty")
    for key, seen in batches_seen(control).items():
        if seen != (ours := batches_seen(log)[key]):
            raise ValueError(f"the control has other {key}" + ("" if key == "data" else f": {seen}, not {ours}"))
    name, data = control[0]["config"]["name"], log[0]["data"]
    intro = f"{name}, of {control[0]['num_active_parameters']:,} parameters, has seen the same tokens in the same order"
    end, dense_end = log[-1], control[-1]
    if dense_end["event"] != "finish":
        end, dense_end = last_common_evaluation(log, control)
        tokens = next(r["tokens"] for r in log if r["event"] == "step" and r["step"] == end["step"])
        intro += (
            f". Its run was cut\nshort: both are compared after {tokens / 1e6:.1f} M tokens, on the first batch of each "
            "domain's held-out text"
        )
    losses, dense_losses = end["losses"], dense_end["losses"]
    pairs = [(domain, loss, dense_losses[domain]) for domain, loss in losses.items() if loss is not None]
    pairs.append(("all", mean_loss(losses, data), mean_loss(dense_losses, data)))
    rows = [
        [domain, f"{math.exp(loss):.2f}", f"{math.exp(dense):.2f}", f"{100 * math.expm1(loss - dense):+.1f} %"]
        for domain, loss, dense in pairs
    ]
    return f"{intro}; its\nlog is `dense_log.jsonl`.\n\n" + table(
        ["domain", "perplexity", "of the dense model", "difference"], rows
    )


def last_common_evaluation(log: list[dict], control: list[dict]) -> tuple[dict, dict]:
    """@raises ValueError if there is none."""
    ours = {record["step"]: record for record in log if record["event"] == "evaluation"}
    for record in reversed(control):
        if record["event"] == "evaluation" and record["step"] in ours:
            return ours[record["step"]], record
    raise ValueError("the control's run has not ended, and was never evaluated after the same step")


def routing(record: dict) -> str:
    """A row for each layer, and a note of the record on where they come from, if there is one."""
    imbalance = record.get("expert_imbalance", record.get("imbalance"))  # the name in older logs
    columns = (imbalance, record["least_load"], record["specialization"])
    rows = [
        [str(layer), *(f"{column[layer]:.3f}" for column in columns), str(record["unused_experts"][layer])]
        for layer in range(len(imbalance))
    ]
    found = table(["layer", "max/mean load", "min/mean load", "specialization", "unused experts"], rows)
    return f"{found}\n\nc2r's docs/metrics.md defines the columns. {record.get('routing_note', '')}".rstrip()


def data_table(data: dict) -> str:
    rows = [
        [
            domain,
            f"{d['train']['documents']:,}",
            f"{d['train']['tokens'] / 1e6:.2f}",
            f"{d['held_out']['documents']:,}",
            f"{d['held_out']['tokens'] / 1e6:.2f}",
            f"{d['overlapping']:,}",
        ]
        for domain, d in data.items()
    ]
    return table(["domain", "documents", "M tokens", "held out", "M tokens", "left out"], rows)


def without_suffix(name: str) -> str:
    return name.removesuffix("-cpu")


def runs_in(family: str) -> str:
    """What runs the model, if transformers does not."""
    if is_in_transformers(family):
        return ""
    return """

transformers has no LLaMA-MoE; c2r runs it. Tensors and the config's keys have the names of the published LLaMA-MoE."""


def stand_in(name: str) -> str:
    """What a model trained by a configuration for machines without a GPU is not."""
    if without_suffix(name) == name:
        return ""
    return f"""

**A stand-in, trained without a GPU**: smaller, and on less text. On a machine with a GPU one command
replaces it:

    python3 -m training.train training/configs/{without_suffix(name)}.toml"""


def output_option(name: str) -> str:
    return "" if without_suffix(name) == name else f" -o models/{without_suffix(name)}"


def duration(end: dict) -> str:
    """Of a whole run; processor time says how much of it was work."""
    text = f"{end['seconds'] / 60:.1f} minutes"
    if "cpu_seconds" not in end:
        return text
    waiting = ", the rest waiting" if end["cpu_seconds"] < 0.9 * end["seconds"] else ""
    return f"{text} ({end['cpu_seconds'] / 60:.1f} of processor time{waiting})"


def joined(starts: list[dict], key: str) -> str:
    """What the pieces of a run say about `key`, each answer once."""
    return ", then ".join(dict.fromkeys(start[key] or "unknown" for start in starts))


def introduction(starts: list[dict], tokens: int, end: dict) -> str:
    """What the model is, and how it was made."""
    first = starts[0]
    model, name = first["config"]["model"], first["config"]["name"]
    epochs = tokens / sum(domain["train"]["tokens"] for domain in first["data"].values())
    pieces = f"{len(starts)} piece{'s' * (len(starts) > 1)}"
    return f"""{header(model["family"])}
# {name}

{FAMILIES[model["family"]].format(**model)}. A small model to test and to show c2r on; what it
writes is fluent at best, never reliable.{runs_in(model["family"])}{stand_in(name)}

{first["num_parameters"]:,} parameters, of which a token uses {first["num_active_parameters"]:,}. Trained from scratch
on {tokens / 1e6:,.1f} M tokens ({epochs:.2f} epochs) in {duration(end)} on {joined(starts, "machine")}, in
{pieces}: {tokens / max(end["seconds"], 1e-9):,.0f} tokens/s. PyTorch {joined(starts, "torch")}, expert products by
{joined(starts, "grouped_matmul")}, commit {joined(starts, "commit")}. The command:

    python3 -m training.train {first["command"]}{output_option(name)}

All figures come from `log.jsonl`. Held-out text and routing are of the saved bf16 weights."""


LEGEND = """*Left out*: documents that share 13 words in a row with an evaluation text. *Held out*: 2 % of the
documents, chosen by hash."""


def card(log: list[dict], control: list[dict] | None = None) -> str:
    """The text of the card, beside the log of a dense `control` if there is one. @raises ValueError if a run has not
    ended."""
    starts, steps = ([record for record in log if record["event"] == event] for event in ("start", "step"))
    if not log or log[-1]["event"] != "finish":
        raise ValueError("the run has not ended")
    end, data, config = log[-1], starts[0]["data"], starts[0]["config"]
    sections = [
        introduction(starts, steps[-1]["tokens"], end),
        f"## Data\n\n{data_table(data)}\n\n{LEGEND}",
        f"## Held-out text\n\n{held_out(end['losses'], data)}",
        f"## Training loss\n\n{curve(steps)}",
    ]
    if control is not None:
        sections.append(f"## Against a dense model\n\n{against(log, control)}")
    if config["model"]["family"] != "qwen2":
        sections.append(f"## Routing of held-out text\n\n{routing(end)}")
    settings = (f"{key} {value}" for key, value in (config["model"] | config["training"]).items())
    samples = ("    " + sample.replace("\n", "\n    ") for sample in end["samples"])
    sections.append("## Settings\n\n" + ", ".join(settings) + ".")
    sections.append("## What it writes\n\nAt temperature 0.8, seed 1:\n\n" + "\n\n---\n\n".join(samples))
    return "\n\n".join(sections) + "\n"


def write_card(log: pathlib.Path, output: pathlib.Path, control: pathlib.Path | None = None) -> None:
    text = card(read_log(log), read_log(control) if control else None)
    with new_file(output) as temporary:
        temporary.write_text(text)
    if control and control.resolve() != (kept := output.resolve().parent / "dense_log.jsonl"):
        shutil.copyfile(control, kept)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python3 -m training.card LOG OUTPUT [LOG_OF_CONTROL]")
    try:
        write_card(*map(pathlib.Path, sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"card: {error}")
