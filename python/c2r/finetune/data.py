"""Examples and texts from files, as token ids and labels; and batches of them."""

import array
import json
import lzma
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from c2r.finetune.settings import Template

IGNORED = -100  # a label without loss, as in PyTorch and transformers


class Turn(NamedTuple):
    user: str
    answer: str
    is_whole: bool = False  # `user` is the prompt as it is, without a template


def _open_text(path: pathlib.Path) -> Any:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    if path.suffix == ".zst":
        try:
            import zstandard
        except ModuleNotFoundError:
            raise ValueError(f"{path}: reading .zst needs the package zstandard; pip install zstandard") from None
        return zstandard.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def read_rows(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each JSON value of a file: one a line, or one array; also as .xz or .zst.

    Raises ValueError, naming file and line, for what is not JSON or not UTF-8.
    """
    inner = path.with_suffix("") if path.suffix in (".xz", ".zst") else path
    try:
        with _open_text(path) as file:
            if inner.suffix == ".json":
                values = json.load(file)
                if not isinstance(values, list):
                    raise ValueError(f"{path}: is not an array of examples")
                yield from ((f"{path}, example {at}", value) for at, value in enumerate(values))
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _text(value: Any, key: str, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: {key} is not a text")  # noqa: TRY004
    return value


def _speeches(row: dict, place: str) -> list[tuple[str, str]]:
    """(who, what) of `messages` or `conversations` in each of their forms."""
    speeches = []
    said = row.get("messages", row.get("conversations"))
    if not isinstance(said, list):
        raise ValueError(f"{place}: messages or conversations is not a list")  # noqa: TRY004
    for at, speech in enumerate(said):
        if isinstance(speech, str):  # LIMA: they take turns
            speeches.append(("user" if at % 2 == 0 else "assistant", speech))
        elif isinstance(speech, dict):
            who = {"human": "user", "gpt": "assistant"}.get(who := speech.get("role", speech.get("from")), who)
            speeches.append((str(who), _text(speech.get("content", speech.get("value")), "a message", place)))
        else:
            raise ValueError(f"{place}: a message is neither a text nor an object")  # noqa: TRY004
    return speeches


def turns_of(row: Any, place: str) -> tuple[str, list[Turn]]:
    """The system's text (may be empty) and the turns of an example in any of the known forms.

    Raises ValueError, with the place, for another form.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{place}: is not an object")  # noqa: TRY004
    if "prompt" in row and "response" in row:
        return "", [Turn(_text(row["prompt"], "prompt", place), _text(row["response"], "response", place), True)]
    if "instruction" in row and "output" in row:
        asked = _text(row["instruction"], "instruction", place)
        more = _text(row.get("input") or "", "input", place)
        return "", [Turn(f"{asked}\n{more}" if more else asked, _text(row["output"], "output", place))]
    if "messages" not in row and "conversations" not in row:
        raise ValueError(f"{place}: has the keys {', '.join(row) or 'none'}, but an example has prompt and response, "
                         "instruction and output, messages, or conversations")  # fmt: skip
    speeches = _speeches(row, place)
    system = ""
    if speeches and speeches[0][0] == "system":
        system = speeches.pop(0)[1] + "\n"
    if len(speeches) % 2:
        speeches.pop()  # a question without an answer teaches nothing
    turns = []
    for (asker, asked), (answerer, answer) in zip(speeches[::2], speeches[1::2], strict=True):
        if (asker, answerer) != ("user", "assistant"):
            raise ValueError(f"{place}: a message of {asker} is followed by one of {answerer}, but user and assistant "
                             "have to take turns")  # fmt: skip
        turns.append(Turn(asked, answer))
    if not turns:
        raise ValueError(f"{place}: has no answer")
    return system, turns


class Example(NamedTuple):
    ids: Sequence[int] | np.ndarray
    labels: Sequence[int] | np.ndarray  # IGNORED, or the id itself


def encode_example(tokenizer: Any, template: Template, system: str, turns: list[Turn], length: int) -> Example | None:
    """Token ids of the whole text and labels of its answers, cut to `length`; None if no label is left.

    As in the official implementation, a part's tokens are those that the text up to its end has more.
    """
    end = template.end or tokenizer.eos_token or ""
    parts: list[tuple[str, bool]] = []
    if not turns[0].is_whole:
        parts.append((system or template.system, False))
    for turn in turns:
        parts.append((turn.user if turn.is_whole else template.user.replace("{}", turn.user.strip()), False))
        answer = turn.answer if turn.is_whole else template.answer.replace("{}", turn.answer)
        parts.append((answer + end, True))
    ids = tokenizer("".join(part for part, _ in parts))["input_ids"]
    labels, so_far, at = [IGNORED] * len(ids), "", 0
    for part, is_answer in parts:
        so_far += part
        upto = len(ids) if len(so_far) == sum(len(p) for p, _ in parts) else len(tokenizer(so_far)["input_ids"])
        if is_answer:
            labels[at:upto] = ids[at:upto]
        at = min(upto, len(ids))
    ids, labels = ids[:length], labels[:length]
    return Example(ids, labels) if any(label != IGNORED for label in labels[1:]) else None


def read_examples(
    paths: Iterable[pathlib.Path], tokenizer: Any, template: Template, length: int
) -> tuple[list[Example], int]:
    """All examples of the files, and the number of those that were left out because no answer fits in `length`."""
    examples, num_left_out = [], 0
    for path in paths:
        for place, row in read_rows(path):
            example = encode_example(tokenizer, template, *turns_of(row, place), length)
            if example is None:
                num_left_out += 1
            else:
                examples.append(example)
    if not examples:
        raise ValueError("there is no example to train on" + (f": of {num_left_out} no answer fits in {length} tokens"
                                                              if num_left_out else ""))  # fmt: skip
    return examples, num_left_out


def read_texts(paths: Iterable[pathlib.Path], tokenizer: Any, length: int, max_tokens: int) -> list[Example]:
    """Texts, each followed by eos_token, joined and cut into sequences of `length`; what is left at the end is dropped.

    paths: one text each, or {"text": ...} a line in *.jsonl, also as .xz or .zst. max_tokens: read no more; 0: all.
    """
    ids = array.array("i")  # four bytes a token: a list would take some forty
    for text in _texts(paths):
        ids.extend(tokenizer(text)["input_ids"])
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        if max_tokens and len(ids) >= max_tokens:
            del ids[max_tokens:]
            break
    num_pieces = len(ids) // length
    if num_pieces == 0:
        raise ValueError(f"the texts have {len(ids)} tokens, but one sequence has {length}; set length to less")
    pieces = np.frombuffer(ids, np.int32)[: num_pieces * length].reshape(num_pieces, length)
    return [Example(piece, piece) for piece in pieces]


def _texts(paths: Iterable[pathlib.Path]) -> Iterator[str]:
    for path in paths:
        if any(suffix in (".jsonl", ".ndjson") for suffix in path.suffixes):
            for place, row in read_rows(path):
                yield _text(row.get("text") if isinstance(row, dict) else None, "text", place)
        else:
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: is not UTF-8: {error}") from None


def collate(examples: list[Example], padding: int = 0) -> dict[str, Tensor]:
    """Pads to the longest: input_ids, attention_mask, labels and shift_labels, [batch, tokens].

    shift_labels: what each position predicts. Padding follows the tokens, has no loss and the mask 0.
    """
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), padding)
    labels = torch.full((len(examples), longest), IGNORED)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.ids)] = torch.tensor(example.labels)
        mask[row, : len(example.ids)] = 1
    shifted = torch.cat([labels[:, 1:], torch.full((len(examples), 1), IGNORED)], 1)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "shift_labels": shifted}
