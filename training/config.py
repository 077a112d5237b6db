"""The configuration of one run: a TOML file with the tables [model] and [training]."""

import dataclasses
import pathlib
import tomllib

FAMILIES = ("qwen2_moe", "llama_moe", "qwen2")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder. The families differ in their MLP: see training/model.py."""

    family: str
    hidden: int
    num_layers: int
    num_heads: int
    intermediate: int  # inner width of one expert, or of the MLP where there are none
    max_tokens: int  # of a sequence
    vocab_size: int = 8192
    num_experts: int = 0
    top_k: int = 0
    shared_intermediate: int = 0  # inner width of the expert that every token visits (qwen2_moe)
    score_scale: float = 1.0  # factor on the weights of the chosen experts (llama_moe)
    noise_epsilon: float = 0.01  # least standard deviation of the gate's noise (llama_moe)
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is '{self.family}', but there are {', '.join(FAMILIES)}")
        if self.hidden % (2 * self.num_heads) != 0:
            raise ValueError(f"hidden = {self.hidden} does not divide into {self.num_heads} heads of even width")
        if self.is_moe and not 0 < self.top_k < self.num_experts:
            raise ValueError(f"top_k = {self.top_k}, but it must be in [1, {self.num_experts - 1}]")
        if (self.num_experts > 0) != self.is_moe or (self.shared_intermediate > 0) != (self.family == "qwen2_moe"):
            raise ValueError(
                f"num_experts = {self.num_experts} and shared_intermediate = {self.shared_intermediate} "
                f"do not fit the family {self.family}"
            )

    @property
    def is_moe(self) -> bool:
        return self.family != "qwen2"

    @property
    def head_size(self) -> int:
        return self.hidden // self.num_heads


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    num_tokens: int  # in all; the last step completes them
    batch_sequences: int  # of max_tokens tokens each
    learning_rate: float  # at its highest
    warmup_steps: int
    final_learning_rate: float = 0.1  # as a share of learning_rate, at the end of the cosine
    weight_decay: float = 0.1  # of matrices
    beta1: float = 0.9
    beta2: float = 0.95
    max_gradient_norm: float = 1.0
    balance_loss_weight: float = 0.0  # of the sum over layers
    seed: int = 1
    log_steps: int = 20
    evaluation_steps: int = 500


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    model: ModelConfig
    training: TrainingConfig

    @property
    def step_tokens(self) -> int:
        return self.training.batch_sequences * self.model.max_tokens

    @property
    def num_steps(self) -> int:
        return -(-self.training.num_tokens // self.step_tokens)


def read_config(path: pathlib.Path) -> Config:
    """Reads a configuration, named after its file. @raises ValueError if a key is unknown, missing or contradictory."""
    try:
        content = tomllib.loads(path.read_text())
        if unknown := set(content) - {"model", "training"}:
            raise ValueError(f"unknown table [{', '.join(sorted(unknown))}]")
        return Config(path.stem, ModelConfig(**content.get("model", {})), TrainingConfig(**content.get("training", {})))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {str(error).replace('.__init__()', '')}") from None
