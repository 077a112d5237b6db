"""Recording of routing: a trace of what a model of transformers chooses for texts."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import c2r
from c2r import _progress
from c2r.hf.routers import Router, find_routers


class _Recorder:
    """The routers' choices of one batch, and the trace that they go to."""

    def __init__(self, routers: list[Router], writer: Any, has_weights: bool) -> None:
        self._writer, self._has_weights = writer, has_weights
        self._outputs: list[tuple[Tensor, Tensor] | None] = [None] * len(routers)
        self._routers = routers

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        hooks = [router.module.register_forward_hook(self._hook_of(at)) for at, router in enumerate(self._routers)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook_of(self, at: int):
        def record(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
            self._outputs[at] = output[2], output[1]

        return record

    def write(self, attention_mask: Tensor, name: str) -> None:
        """Appends the tokens of each sequence of the batch, padding left out."""
        batch, length = attention_mask.shape
        outputs = []
        for router, output in zip(self._routers, self._outputs, strict=True):
            if output is None or len(output[0]) != batch * length:
                raise RuntimeError(f"the router {router.name} was not called for all tokens: c2r cannot profile a model "
                                   "whose MoE blocks were replaced, as by use_kernels")  # fmt: skip
            outputs.append([part.to("cpu").view(batch, length, -1) for part in output])
        for sequence in range(batch):
            is_token = attention_mask[sequence].bool().cpu()
            if not is_token.any():
                continue
            self._writer.start_sequence()
            for layer, (topk_idx, topk_weights) in enumerate(outputs):
                ids = topk_idx[sequence][is_token].to(torch.int32).contiguous().numpy()
                weights = topk_weights[sequence][is_token].float().contiguous().numpy() if self._has_weights else None
                self._writer.append(layer, ids, weights, name)
        self._outputs = [None] * len(self._routers)


def _batches(tokenizer: Any, texts: Iterable[str], max_length: int, batch_size: int) -> Iterator[dict[str, Tensor]]:
    rows = (tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts)
    rows = (row for row in rows if row)
    while some := list(itertools.islice(rows, batch_size)):
        length = max(map(len, some))
        ids = torch.zeros(len(some), length, dtype=torch.long)
        mask = torch.zeros(len(some), length, dtype=torch.long)
        for at, row in enumerate(some):
            ids[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        yield {"input_ids": ids, "attention_mask": mask}


def profile(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[str],
    path: str | pathlib.Path,
    *,
    max_length: int = 1024,
    batch_size: int = 8,
    weights: bool = False,
    model_name: str | None = None,
    progress: Any = False,
) -> Any:
    """Runs texts through a model and records which experts every token chose: a routing trace, a safetensors file.

    texts: any number of them; each is cut to its first max_length tokens and becomes one sequence of the trace. They
        are read as they are needed, and memory does not grow with their number. Padding is left out.
    weights: also record the weights of the choices, as float16.
    model_name: kept in the trace; by default the model's name_or_path.
    progress: True shows a bar; or a callable of (done, total) texts, total 0.

    On several ranks each records what it runs: give each a path of its own. A constrained model's trace is that of the
    constrained choice. Nothing is left at path if an error or Ctrl-C ends the recording.

    Returns the c2r.Trace. Needs the extension module of the package.
    Raises ValueError for a model whose routers c2r does not know, and if there are no tokens.
    """
    routers = find_routers(model)
    header = c2r.TraceHeader(
        num_experts=routers[0].num_experts,
        top_k=routers[0].top_k,
        layer_indices=[router.layer_index for router in routers],
        model=model_name if model_name is not None else getattr(model.config, "name_or_path", ""),
    )
    writer = c2r.TraceWriter(path, header, has_weights=weights)
    recorder = _Recorder(routers, writer, weights)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    num_texts = 0
    try:
        with torch.no_grad(), recorder.attached(), _progress.shown(progress, "profiling") as report:
            for batch in _batches(tokenizer, texts, max_length, batch_size):
                model(**{name: part.to(device) for name, part in batch.items()}, use_cache=False)
                recorder.write(batch["attention_mask"], str(path))
                num_texts += len(batch["input_ids"])
                if report is not None:
                    report(num_texts, 0)
    finally:
        model.train(was_training)
    if num_texts == 0:
        raise ValueError("there are no tokens to profile: the texts are empty")
    writer.finish()
    return c2r.Trace(path)
