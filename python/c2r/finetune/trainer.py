"""transformers' Trainer with a loss whose parts are scaled alike, and a log of its own."""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from c2r.finetune.data import IGNORED
from c2r.finetune.meter import RoutingMeter

LOG = "log.jsonl"
Penalty = Callable[[nn.Module, dict[str, Tensor]], Tensor]


class FinetuneTrainer(transformers.Trainer):
    """Loss: mean over the learned tokens of the whole step, + balance_loss * mean over micro-batches of the model's
    balance loss, + the mean over micro-batches of `penalty`, if there is one.

    transformers adds the balance loss of every micro-batch in full, so it grows with their number.

    model: of a continued run that of the checkpoint, by from_pretrained()
    penalty: called after each forward pass of training with the model and the batch
    """

    def __init__(self, *, meter: RoutingMeter, balance_loss: float, penalty: Penalty | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # so that learned tokens are counted over the whole step
        self._meter, self._balance_loss, self._penalty = meter, balance_loss, penalty

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
                     num_items_in_batch: Tensor | None = None) -> Any:  # fmt: skip
        inputs = dict(inputs)
        inputs.pop("labels")
        targets = inputs.pop("shift_labels")
        self._meter.mask = inputs["attention_mask"]
        needs_balance = self._balance_loss > 0
        outputs = model(**inputs, use_cache=False, **({"output_router_logits": True} if needs_balance else {}))
        loss = F.cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        loss = loss * (self.accelerator.num_processes // self.get_tp_size()) / num_items_in_batch
        if needs_balance:
            loss = loss + self._balance_loss * outputs.aux_loss / self.current_gradient_accumulation_steps
        if self._penalty is not None:
            loss = loss + self._penalty(model, inputs) / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the model was loaded from the checkpoint. transformers' own way leaves the experts as they were,
        without an error: they have one name each in the file, and one for all in the model."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self._meter.take() if "loss" in logs else logs, start_time)


class LogCallback(transformers.TrainerCallback):
    """Appends each line of the log to a file and prints it. A continued run drops what came after its checkpoint."""

    def __init__(self, path: pathlib.Path, first_step: int) -> None:
        self._path, self._said = path, time.monotonic()
        kept = [record for record in read_log(path) if record["step"] <= first_step]
        path.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        record = {"step": state.global_step} | logs
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        now = time.monotonic()
        shown = "".join(f"  {name} {logs[key]:.3f}" for name, key in
                        (("balance", "balance_loss"), ("expert imbalance", "expert_imbalance"), ("copies/token", "copies_per_token"))
                        if key in logs)  # fmt: skip
        print(f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  lr {logs['learning_rate']:.2e}"
              f"{shown}  {now - self._said:.1f} s", file=sys.stderr, flush=True)  # fmt: skip
        self._said = now


def read_log(path: pathlib.Path) -> list[dict]:
    """Every whole record of a log; a last line that a kill cut off is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def last_checkpoint(folder: pathlib.Path) -> pathlib.Path | None:
    """The newest checkpoint that is complete: its trainer_state.json is written last."""
    found = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            found[json.loads(state.read_text())["global_step"]] = state.parent
        except (ValueError, KeyError):  # the kill came while it was written
            continue
    return found[max(found)] if found else None
