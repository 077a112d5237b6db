"""Hugging Face transformers' side of bench/compare_engines.py, on the CPU in bf16."""
import time

import random_models as models

IMPLEMENTATIONS = ("grouped_mm", "batched_mm", "eager")


class Transformers:
    """A model with random weights made in memory; which experts implementation is a phase's own."""

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

    def choose(self, implementation):
        self.model.set_experts_implementation(implementation)

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
