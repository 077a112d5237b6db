"""What a run of fine-tuning is: recipes with names, and single values that replace theirs."""

import dataclasses
import difflib
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Template:
    """The text around the turns of an example. Loss is taken on answers and their ends."""

    system: str  # before the first turn
    user: str  # {} is what the user says
    answer: str  # {} is the answer
    end: str  # after every answer; empty: the tokenizer's eos_token


# The official implementation's, from DeepSeek-MoE's fine-tuning; the marker need not be one token.
DEEPSEEK = Template(
    system="You are an AI assistant, developed by DeepSeek Company. For politically sensitive questions, security and "
    "privacy issues, you will refuse to answer.\n",
    user="### Instruction:\n{}\n### Response:\n", answer="{}\n", end="<|EOT|>",
)  # fmt: skip
VICUNA = Template(
    system="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. ",
    user="USER: {} ASSISTANT:", answer=" {}", end="",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run. `training` are fields of transformers.TrainingArguments."""

    recipe: str
    template: Template
    batch: int  # sequences of one optimizer step, of all ranks together
    length: int  # tokens of a sequence; longer examples are cut
    balance_loss: float  # factor of the model's balance loss, of the choice that is really made
    gate_noise: bool  # noise on the gate's logits in training, of LLaMA-MoE
    training: dict[str, Any]
    micro_batch: int = 1  # sequences that a rank computes at a time
    max_tokens: int = 0  # of plain text that is read; 0: all
    trained: str = "all"  # or "router": the other parameters stay as they are
    checkpointing: bool = True  # recompute layers in the backward pass instead of keeping them
    bf16: bool | None = None  # products in bfloat16; None: on a GPU

    def __post_init__(self) -> None:
        for key, least in (("batch", 1), ("length", 2), ("micro_batch", 1), ("max_tokens", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} is {getattr(self, key)}, but must be at least {least}")
        if self.trained not in ("all", "router"):
            raise ValueError(f"trained is '{self.trained}', but must be all or router")

    def accumulation(self, num_ranks: int) -> int:
        """Micro-batches of a rank in one step. Raises ValueError if the batch cannot be divided."""
        at_once = self.micro_batch * num_ranks
        if self.batch % at_once:
            raise ValueError(f"batch = {self.batch} sequences cannot be divided among {num_ranks} ranks with micro_batch"
                             f" = {self.micro_batch}; set batch to a multiple of {at_once}")  # fmt: skip
        return self.batch // at_once


_COMMON = {
    "num_train_epochs": 2.0, "learning_rate": 2e-5, "lr_scheduler_type": "cosine", "weight_decay": 0.0,
    "logging_steps": 1, "save_steps": 50, "save_total_limit": 1, "seed": 42,
}  # fmt: skip
RECIPES = {
    # Qwen1.5-MoE on LIMA: 4 GPUs x 8 sequences x 2 micro-batches.
    "qwen": Settings("qwen", DEEPSEEK, batch=64, length=2048, balance_loss=0.0, gate_noise=False,
                     training=_COMMON | {"warmup_steps": 10}),
    # LLaMA-MoE on deita-6k: 4 GPUs x 4 sequences x 8 micro-batches.
    "llama": Settings("llama", VICUNA, batch=128, length=2048, balance_loss=0.01, gate_noise=True,
                      training=_COMMON | {"warmup_steps": 0.03, "seed": 12306}),
    # Continued training on plain text: of the paper nothing is known; the values are those of the qwen recipe.
    "text": Settings("text", DEEPSEEK, batch=64, length=2048, balance_loss=0.0, gate_noise=False,
                     training=_COMMON | {"num_train_epochs": 1.0, "warmup_steps": 10}),
}  # fmt: skip
# Fields of TrainingArguments that follow from others here.
_OURS = {
    "output_dir": "-o", "per_device_train_batch_size": "--set micro_batch", "resume_from_checkpoint": "the same -o again",
    "gradient_accumulation_steps": "--set batch", "gradient_checkpointing": "--set checkpointing",
    "activation_checkpointing": "--set checkpointing", "fsdp": "--fsdp", "fsdp_config": "--fsdp",
    "remove_unused_columns": None, "average_tokens_across_devices": None, "label_names": None,
}  # fmt: skip


def read_value(text: str) -> Any:
    """A value of --set: JSON if it is, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _training_fields() -> set[str]:
    from transformers import TrainingArguments

    return {field.name for field in dataclasses.fields(TrainingArguments) if field.init}


def _checked(key: str, value: Any) -> Any:
    """A value for a field of Settings, of the type that the field's default has."""
    if key == "bf16" and value is None:
        return None
    kind = bool if key == "bf16" else type(getattr(RECIPES["qwen"], key))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key} is {value!r}, but must be of the type {kind.__name__}")
    return value


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """Settings with some values replaced: of their own fields, template.FIELD, and fields of TrainingArguments.

    Raises ValueError for a key that none of them has, naming one that is close, and for a value of another type.
    """
    own = {field.name for field in dataclasses.fields(Settings)} - {"recipe", "template", "training"}
    template = {field.name for field in dataclasses.fields(Template)}
    training = dict(settings.training)
    for key, value in values.items():
        if key in own:
            settings = dataclasses.replace(settings, **{key: _checked(key, value)})
        elif key.startswith("template.") and key.removeprefix("template.") in template:
            changed = {key.removeprefix("template."): str(value)}
            settings = dataclasses.replace(settings, template=dataclasses.replace(settings.template, **changed))
        elif key in _OURS:
            instead = _OURS[key]
            raise ValueError(f"{key} cannot be set" + (f"; use {instead}" if instead else ""))
        elif key in (known := _training_fields()):
            training[key] = value
        else:
            near = difflib.get_close_matches(key, [*own, *known, *(f"template.{name}" for name in template)], 1)
            raise ValueError(f"there is no setting '{key}'" + (f"; did you mean {near[0]}?" if near else ""))
    if training["save_steps"] % training["logging_steps"]:
        raise ValueError(f"save_steps = {training['save_steps']} must be a multiple of logging_steps = "
                         f"{training['logging_steps']}, so that a continued run logs the same means")  # fmt: skip
    return dataclasses.replace(settings, training=training)


def as_json(settings: Settings) -> dict[str, Any]:
    return dataclasses.asdict(settings)
