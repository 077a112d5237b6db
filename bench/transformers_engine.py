"""Hugging Face transformers' side of bench/compare_engines.py, on the CPU in bf16 or f32."""
import sys
import time

import random_models as models

SPARE_BYTES = 2 << 30  # for what f32 needs beside weights: activations, logits, keys and values


def implementations(phase):
    """Of experts. batched_mm copies an expert's matrices for each choice of each token: not for prompts."""
    return ("grouped_mm", "eager") if phase == "prefill" else ("grouped_mm", "batched_mm", "eager")


def available_bytes():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))


class Transformers:
    """A model with random weights made in memory; implementation of experts and type are a phase's own."""

    def __init__(self, config, num_threads):
        import torch
        import transformers
        self.torch, self.transformers = torch, transformers
        torch.set_num_threads(num_threads)
        settings = transformers.AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
        model.to_empty(device="cpu")
        model.model.rotary_emb = type(model.model.rotary_emb)(settings)  # has no weights, but values
        values = models.RandomValues()
        for name, parameter in model.named_parameters():
            flat = parameter.data.view(-1).view(torch.int16)
            if "norm" in name:
                flat.fill_(0x3F80)
                continue
            begin = 0
            for piece in values.pieces(flat.numel()):
                flat[begin:begin + len(piece)] = torch.from_numpy(piece.view("int16"))
                begin += len(piece)
        self.model = model.eval()

    def dtypes(self):
        """Types that the weights fit into memory as. They are bf16 now; as f32 they are twice as large."""
        more = 2 * sum(parameter.numel() for parameter in self.model.parameters())
        if more + SPARE_BYTES <= available_bytes():
            return ("bf16", "f32")
        print(f"transformers: f32 is left out, because it takes {(more + SPARE_BYTES) / 1e9:.1f} GB "
              f"more, and {available_bytes() / 1e9:.1f} GB are free", file=sys.stderr, flush=True)
        return ("bf16",)

    def choose(self, implementation, dtype):
        """The values are bf16, so that they are the same in both types, there and back."""
        self.model.set_experts_implementation(implementation)
        to = {"bf16": self.torch.bfloat16, "f32": self.torch.float32}[dtype]
        for parameter in self.model.parameters():  # one by one; and not what RoPE computes in f32
            parameter.data = parameter.data.to(to)

    def start(self):
        self.cache = self.transformers.DynamicCache(config=self.model.config)

    def run(self, tokens, position):
        """Appends tokens[sequence] to each sequence; logits of the last of each."""
        del position
        ids = self.torch.tensor(tokens)
        begin = time.perf_counter()
        with self.torch.inference_mode():
            self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - begin
