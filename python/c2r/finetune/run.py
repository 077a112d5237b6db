"""From a model's folder to a fine-tuned one."""

import functools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

import c2r.hf
import c2r.hf.llama_moe
from c2r.finetune.data import Example, collate
from c2r.finetune.meter import RoutingMeter
from c2r.finetune.settings import Settings, as_json
from c2r.finetune.trainer import LOG, FinetuneTrainer, LogCallback, Penalty, last_checkpoint
from c2r.hf.routers import find_routers
from c2r.torch.placement import contiguous, rank_of_expert

RUN = "finetune.json"  # what was asked for; in the output folder, beside the log and the checkpoints
_UNFINISHED_RUN = f".{RUN}"  # until it is written


class Spread(NamedTuple):
    """How a model is spread over the ranks that torchrun starts."""

    fsdp: int = 1
    ep: int = 1
    implementation: str = "c2r"  # of the exchange: c2r, c2r_per_expert or one of transformers'


def num_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str) -> None:
    if is_first_rank():
        print(text, file=sys.stderr, flush=True)


def load_model(path: pathlib.Path | str, spread: Spread) -> nn.Module:
    """The model in float32, which is what the optimizer changes. Raises ValueError if it cannot be spread like this."""
    if spread.ep == spread.fsdp == 1:
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if num_ranks() != spread.fsdp:
        raise ValueError(f"--fsdp {spread.fsdp} needs as many ranks, but there are {num_ranks()}; start them with "
                         f"torchrun --nproc-per-node {spread.fsdp} -m c2r.finetune ...")  # fmt: skip
    from transformers.distributed.configuration_utils import DistributedConfig

    c2r.hf.register()
    config = DistributedConfig(
        fsdp_size=spread.fsdp, ep_size=spread.ep, ep_implementation=spread.implementation if spread.ep > 1 else "auto"
    )
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, distributed_config=config)


def apply_settings(model: nn.Module, settings: Settings) -> None:
    """Sets what a model itself does in training: gate noise, which parameters are trained, and recomputation."""
    for router in find_routers(model):
        if hasattr(router.module, "adds_noise"):
            router.module.adds_noise = settings.gate_noise
    if settings.trained == "router":
        in_router = {id(p) for router in find_routers(model) for p in router.module.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in in_router)
    if settings.checkpointing:
        from c2r.torch.recompute import reuse_routing

        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": reuse_routing})


def ranks_of_plan(path: pathlib.Path, num_experts: int) -> list[Tensor] | None:
    """The rank of each expert in each layer of a plan; None if the plan has replicas, whose copies are a choice."""
    layers = json.loads(path.read_text())["layers"]
    try:
        return [rank_of_expert(layer["slots"], num_experts) for layer in layers]
    except ValueError:
        return None


def ranks_to_count(model: nn.Module, plan: pathlib.Path | None, spread: Spread) -> list[Tensor] | None:
    """Where experts are for the log's copies per token: with expert parallelism where they are, else as the plan says."""
    routers = find_routers(model)
    if spread.ep > 1:
        return [torch.as_tensor(contiguous(router.num_experts, spread.ep)) for router in routers]
    return None if plan is None else ranks_of_plan(plan, routers[0].num_experts)


def _arguments(
    settings: Settings, output: pathlib.Path, num_sequences: int, has_checkpoints: bool
) -> transformers.TrainingArguments:
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu if settings.bf16 is None else settings.bf16
    given = {
        "output_dir": str(output / "checkpoints"), "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation(num_ranks()), "remove_unused_columns": False,
        "label_names": ["labels"], "use_cpu": not has_gpu, "bf16": bf16, "report_to": [], "disable_tqdm": True,
        "dataloader_pin_memory": has_gpu, "save_strategy": "steps" if has_checkpoints else "no", "log_level": "error",
    }  # fmt: skip
    if settings.training.get("max_steps", 0) <= 0 and num_sequences < settings.batch:
        raise ValueError(f"a step takes batch = {settings.batch} sequences, but there are {num_sequences}; set batch "
                         "to less, or give more data")  # fmt: skip
    try:
        return transformers.TrainingArguments(**(given | settings.training))
    except (TypeError, ValueError) as error:
        raise ValueError(f"transformers refuses the settings: {str(error).splitlines()[0]}") from None


def _check_same_run(output: pathlib.Path, asked: dict[str, Any]) -> None:
    """Raises ValueError if the folder is of another run, or of one that has ended.

    The first rank can be writing the folder meanwhile, so its names are listed once, and its unfinished file is no
    sign of another run.
    """
    names = {path.name for path in output.iterdir()} if output.exists() else set()
    if RUN not in names:
        if names - {_UNFINISHED_RUN}:
            raise ValueError(f"{output} is not empty, and not of a run of c2r.finetune; give another -o")
        return
    before = json.loads((output / RUN).read_text())
    if "config.json" in names:
        raise ValueError(f"{output} has a model that is trained already; give another -o, or delete it")
    for key in asked | before:
        if asked.get(key) != before.get(key):
            raise ValueError(f"{output} was begun with {key} = {before.get(key)}, not {asked.get(key)}; repeat the "
                             "command, give another -o, or delete the folder")  # fmt: skip


def prepare_output(output: pathlib.Path, settings: Settings, inputs: dict[str, Any]) -> None:
    """Makes the folder, or finds out that it is of the same run.

    inputs: the rest of the command; with the settings, all that decides about the result.
    """
    asked = _flat(as_json(settings) | inputs)
    _check_same_run(output, asked)
    if is_first_rank():  # the others find what it has written, or nothing
        output.mkdir(parents=True, exist_ok=True)
        new = output / _UNFINISHED_RUN
        new.write_text(json.dumps(asked, indent=1) + "\n")
        os.replace(new, output / RUN)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return json.loads(json.dumps(found))  # as it will be read


def train(
    load: Callable[[pathlib.Path | None], nn.Module], tokenizer: Any, examples: list[Example], settings: Settings,
    output: pathlib.Path, *, dtype: torch.dtype, ranks_of: Callable[[nn.Module], list[Tensor] | None] = lambda _: None,
    penalty: Penalty | None = None,
) -> nn.Module:  # fmt: skip
    """Trains a model that is constrained or not, from the last checkpoint in `output` on if there is one, and writes
    model and tokenizer there when it has ended. Checkpoints are deleted then. A sharded model has none: transformers
    cannot save its optimizer.

    load: gives the model, constrained and with apply_settings(), of a checkpoint's folder or, for None, of the start
    dtype: in which weights are written; they are trained in the model's own
    ranks_of: where the experts of the model are, for the log's copies per token, as RoutingMeter takes it
    Returns the model. Raises ValueError for settings that transformers refuses, and for less data than one step takes.
    """
    transformers.set_seed(settings.training["seed"])
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    checkpoint = last_checkpoint(output / "checkpoints")
    first_step = 0 if checkpoint is None else int(checkpoint.name.split("-")[1])
    model = load(checkpoint)
    is_sharded = getattr(model, "is_distributed_loading_by_transformers", False)
    if is_sharded:
        say("transformers cannot save the optimizer of a sharded model, so a run that is killed begins again")
    arguments = _arguments(settings, output, len(examples), has_checkpoints=not is_sharded)
    trainer = FinetuneTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=functools.partial(collate, padding=padding),
        meter=RoutingMeter(model, ranks_of(model)), balance_loss=settings.balance_loss, penalty=penalty,
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    if is_first_rank():
        trainer.add_callback(LogCallback(output / LOG, first_step))
    if checkpoint is not None:
        say(f"continuing after step {first_step}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    model.to(dtype)
    _save(trainer, tokenizer, output)
    return model


def _save(trainer: FinetuneTrainer, tokenizer: Any, output: pathlib.Path) -> None:
    """The model beside the log; config.json last, for it says that the folder is whole."""
    whole = output / "checkpoints" / "model"
    trainer.save_model(str(whole))
    if not is_first_rank():
        return
    tokenizer.save_pretrained(whole)
    for file in sorted(whole.iterdir(), key=lambda file: file.name == "config.json"):
        if file.name != "training_args.bin":
            os.replace(file, output / file.name)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


def constrain(model: nn.Module, lists: pathlib.Path | None, top_t: Any) -> str:
    """Constrains the routing by the lists of a file or of the model's config, if there are some. Says what it did.

    Raises ValueError as c2r.hf.constrain().
    """
    if lists is None and getattr(model.config, "collaborative_list", None) is None:
        if top_t is not None:
            raise ValueError("--top-t needs lists: give --plan or --lists")
        return "the routing is free: there is no --plan and no --lists, and the model's config has no lists"
    constraint = c2r.hf.constrain(model, lists, top_t)
    lengths = [len(layer[0]) for layer in constraint.lists]
    of = "the model's config" if lists is None else str(lists)
    return f"the routing obeys the lists of {of}, T = {', '.join(map(str, sorted(set(lengths))))}"


def as_plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Paths as texts, for JSON."""
    return json.loads(json.dumps(inputs, default=str))
