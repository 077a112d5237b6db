"""Token ids to train on, and documents that are held out, of every domain equally many."""

import itertools
import pathlib
from typing import Any, NamedTuple

from training.corpus import DOMAINS, is_held_out, read_documents


class Document(NamedTuple):
    domain: str
    ids: list[int]  # its first tokens


def held_out(corpora: pathlib.Path, tokenizer: Any, per_domain: int, length: int) -> list[Document]:
    """The first `per_domain` held-out documents of at least `length` tokens of each domain, cut to that."""
    found = []
    for domain in DOMAINS:
        texts = (text for text in read_documents(corpora, domain) if is_held_out(text))
        rows = (tokenizer(text[: 12 * length])["input_ids"] for text in texts)
        whole = (Document(domain, row[:length]) for row in rows if len(row) >= length)
        found += itertools.islice(whole, per_domain)
    # Domains take turns, twice each: so even and odd places have all of them.
    by_domain = [[document for document in found if document.domain == domain] for domain in DOMAINS]
    order = [rows[at : at + 2] for at in range(0, per_domain, 2) for rows in by_domain]
    return [document for pair in order for document in pair]


def to_train_on(corpora: pathlib.Path, tokenizer: Any, num_tokens: int, length: int) -> list[list[int]]:
    """Sequences of `length` tokens, one from each domain in turn, until there are num_tokens: the beginnings of
    documents that are not held out, end to end with eos_token between them.
    """
    streams = [_sequences(corpora, domain, tokenizer, length) for domain in DOMAINS]
    taking_turns = (row for rows in zip(*streams, strict=False) for row in rows)
    return list(itertools.islice(taking_turns, -(-num_tokens // length)))


def _sequences(corpora: pathlib.Path, domain: str, tokenizer: Any, length: int):
    ids: list[int] = []
    for text in read_documents(corpora, domain):
        if is_held_out(text):
            continue
        # Long books are cut, so that a short run sees many documents.
        ids += [*tokenizer(text[: 40 * length])["input_ids"], tokenizer.eos_token_id]
        while len(ids) >= length:
            yield ids[:length]
            del ids[:length]
