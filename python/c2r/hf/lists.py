"""Collaborator lists, in whichever form a user has them."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from c2r.hf.routers import Router
from c2r.torch.routing import collaborator_mask


def _of_file(path: pathlib.Path) -> Any:
    """The lists of a plan, of what `c2r collaborators` writes, or of a config.json."""
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    lists = data
    if isinstance(data, dict) and data.get("format") == "c2r-plan":
        layers = data.get("layers")
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise ValueError(f"{path}: the plan's layers are not a list of objects")
        lists = [layer.get("collaborators") for layer in layers]
        if any(layer is None for layer in lists):
            raise ValueError(f"{path}: the plan has no collaborator lists; c2r plan --top-t makes them")
    elif isinstance(data, dict):
        found = [data[key] for key in ("collaborators", "collaborative_list") if key in data]
        if not found:
            raise ValueError(
                f"{path}: has no collaborator lists: a plan with top_t, or a file of c2r collaborators, has them"
            )
        lists = found[0]
    if not isinstance(lists, list):
        raise ValueError(f"{path}: the collaborator lists are not a list over layers")  # noqa: TRY004
    return lists


def read_lists(lists: Any, config: Any) -> Any:
    """Lists as a sequence over layers, of an array, nested sequences, a file's path, a plan, or the model's config.

    Raises ValueError if there are none.
    """
    if lists is None:
        lists = getattr(config, "collaborative_list", None)
        if lists is None:
            raise ValueError("no lists were given, and the model's config has no collaborative_list")
    if isinstance(lists, str | pathlib.Path):
        return _of_file(pathlib.Path(lists))
    of_plan = getattr(lists, "collaborators", None)  # c2r.Plan
    if callable(of_plan):
        return of_plan()
    return lists


def _rows(layer: Any, name: str) -> list[list[int]]:
    rows = layer.tolist() if hasattr(layer, "tolist") else layer
    is_rows = isinstance(rows, Sequence) and all(isinstance(row, Sequence) for row in rows)
    if not is_rows or not all(isinstance(entry, int) for row in rows for entry in row):
        raise ValueError(f"{name}: the collaborator lists are not rows of whole numbers")
    return [list(row) for row in rows]


def lists_of_layers(lists: Any, routers: list[Router], top_t: Any) -> list[list[list[int]]]:
    """The first T entries of every list: [num_moe_layers][num_experts][T of the layer].

    top_t: a number for all layers, one for each, or None: as long as the layer's lists are, without an expert itself
    at their end, as the official configs have it.

    Raises ValueError, naming the layer, for a T that no token of the layer could be routed with, and for what
    c2r.torch.collaborator_mask() refuses.
    """
    if len(lists) != len(routers):
        raise ValueError(f"there are lists of {len(lists)} layers, but {len(routers)} layers have experts")
    if top_t is not None and not isinstance(top_t, int) and len(top_t) != len(routers):
        raise ValueError(f"top_t has {len(top_t)} entries, but {len(routers)} layers have experts")
    result = []
    for at, (layer, router) in enumerate(zip(lists, routers, strict=True)):
        rows = _rows(layer, router.name)
        if len(rows) != router.num_experts:
            raise ValueError(f"{router.name}: there are lists of {len(rows)} experts, but it has {router.num_experts}")
        rows = [[other for other in row if other != expert] for expert, row in enumerate(rows)]
        longest = min(len(row) for row in rows)
        wanted = top_t if top_t is None or isinstance(top_t, int) else top_t[at]
        length = longest if wanted is None else int(wanted)
        least, most = max(1, router.top_k - 1), min(longest, router.num_experts - 1)
        if not least <= length <= most:
            raise ValueError(f"{router.name}: top_t is {length}, but must be in [{least}, {most}]: a token of top-"
                             f"{router.top_k} needs {least} collaborators, and the lists have {longest}")  # fmt: skip
        result.append([row[:length] for row in rows])
    return result


def masks_of(lists: list[list[list[int]]], routers: list[Router]) -> list[Tensor]:
    """One bool [num_experts, num_experts] for each layer, see c2r.torch.collaborator_mask()."""
    masks = []
    for layer, router in zip(lists, routers, strict=True):
        try:
            masks.append(collaborator_mask(torch.tensor(layer), router.num_experts))
        except ValueError as error:
            raise ValueError(f"{router.name}: {error}") from None
    return masks


def top_t_of_config(lists: Any, config: Any) -> list[int]:
    """T of each layer as a config means it: its top_t, or the length of the layer's lists where that is less."""
    others = [[[other for other in row if other != expert] for expert, row in enumerate(layer)] for layer in lists]
    return [min(config.top_t, *(len(row) for row in layer)) for layer in others]


def keep_in_config(model: nn.Module, lists: list[list[list[int]]]) -> None:
    """Writes the constraint where save_pretrained() keeps it and c2r's engine reads it."""
    model.config.top_t = max(len(layer[0]) for layer in lists)
    model.config.collaborative_list = lists
