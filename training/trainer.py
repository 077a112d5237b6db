"""The training loop's parts: one optimization step, and checkpoints that continue it exactly."""

import dataclasses
import math
import pathlib

import torch
from torch import Tensor

from training.batches import Batches, Corpus
from training.config import Config
from training.experts import choose_grouped_matmul
from training.files import new_file
from training.model import Decoder, token_losses


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then half a cosine, which would come down to final_learning_rate * learning_rate in the step
    after the last."""
    training = config.training
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(1, config.num_steps - training.warmup_steps)
    share = training.final_learning_rate + (1 - training.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    return training.learning_rate * share


@dataclasses.dataclass
class StepResult:
    """Of one step; tensors on the device, so that reading them is the caller's choice."""

    loss: Tensor  # mean cross entropy, nats per token
    balance_loss: Tensor  # sum over layers, without its weight
    gradient_norm: Tensor  # before clipping


class Trainer:
    """A model, its optimizer, and the number of steps they have done.

    Everything random in a step is seeded by the step, so a checkpoint holds no random state. Weights and the
    optimizer are float32; products are bf16 on a GPU, float32 on the CPU.
    """

    def __init__(self, config: Config, corpus: Corpus, device: torch.device, compile_blocks: bool) -> None:
        torch.manual_seed(config.training.seed)
        torch.set_float32_matmul_precision("high")
        self.config, self.device, self.step = config, device, 0
        self.seconds, self.cpu_seconds = 0.0, 0.0  # spent training, over all runs that led here
        self.matmul, self.matmul_reason = choose_grouped_matmul(device)
        self.model = Decoder(config.model, self.matmul).to(device).train()
        self.batches = Batches(corpus, config.model.max_tokens, config.training.batch_sequences, config.training.seed)
        self._facts = corpus.facts
        self.optimizer = self._make_optimizer()
        self._token_losses = token_losses
        if compile_blocks:
            for layer in self.model.layers:
                layer.compile()  # all layers share one compiled block
            self.model.norm.compile()
            self._token_losses = torch.compile(token_losses)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        parameters, training = list(self.model.parameters()), self.config.training
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, betas=(training.beta1, training.beta2), fused=self.device.type == "cuda")

    def _next_batch(self) -> Tensor:
        """int64 [batch_sequences, max_tokens + 1] on the device."""
        batch = torch.from_numpy(self.batches.at(self.step).astype("int64"))
        return batch.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else batch

    def train_step(self) -> StepResult:
        """One forward and backward pass and one update."""
        training = self.config.training
        torch.manual_seed(training.seed * 1_000_003 + self.step)  # the gates' noise
        batch = self._next_batch()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.model(batch[:, :-1])
            loss = self._token_losses(output.logits, batch[:, 1:]).mean()
        balance_loss = sum((routing.balance_loss for routing in output.routings), torch.zeros((), device=self.device))
        (loss + training.balance_loss_weight * balance_loss).backward()
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.max_gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return StepResult(loss.detach(), balance_loss.detach(), gradient_norm)

    def save(self, path: pathlib.Path) -> None:
        """Writes a checkpoint, whole or not at all: about 12 bytes a parameter."""
        state = {
            "config": dataclasses.asdict(self.config), "facts": self._facts, "step": self.step,
            "seconds": self.seconds, "cpu_seconds": self.cpu_seconds,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        with new_file(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: pathlib.Path) -> None:
        """Continues from a checkpoint. @raises ValueError if it was made with another configuration or corpus."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for what, found, wanted in (
            ("configuration", state["config"], dataclasses.asdict(self.config)),
            ("corpus", state["facts"], self._facts),
        ):
            if found != wanted:
                raise ValueError(f"{path} was made with another {what}; remove it to start again")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.cpu_seconds = state["step"], state["seconds"], state["cpu_seconds"]
