"""Makes what training reads: the tokenizer, and every document as tokens, checked and split.

  python3 -m training.prepare --data ../shared/data -o build/training/corpus

Writes tokenizer.json and corpus.xz (see training/batches.py) into the output folder.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import pathlib
import sys
import time

import numpy as np
from tokenizers import Tokenizer

from training import batches, corpus
from training.files import new_folder
from training.tokenizer import END_OF_TEXT, VOCAB_SIZE, train_tokenizer

SPLITS = ("train", "held_out")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class Documents:
    """The documents of all domains, and how many of each domain were left out, for which reason."""

    texts: dict[tuple[str, str], list[str]]  # by (domain, split), in the order of the files
    num_overlapping: collections.Counter  # they share a run of words with an evaluation text
    num_repeated: collections.Counter  # they came before, letter for letter


def collect(data: pathlib.Path, domains: tuple[str, ...]) -> Documents:
    """Reads, checks and splits the documents."""
    runs = corpus.WordRuns()
    evaluation = corpus.evaluation_runs(data / "eval", runs)
    documents = Documents(
        {key: [] for key in itertools.product(domains, SPLITS)}, collections.Counter(), collections.Counter()
    )
    seen: set[str] = set()
    for domain in domains:
        for text in corpus.read_documents(data / "corpora", domain):
            if text in seen:
                documents.num_repeated[domain] += 1
            elif corpus.overlaps(text, runs, evaluation):
                documents.num_overlapping[domain] += 1
            else:
                documents.texts[domain, SPLITS[corpus.is_held_out(text)]].append(text)
            seen.add(text)
        say(
            f"{domain}: {len(documents.texts[domain, 'train'])} documents to train on, "
            f"{len(documents.texts[domain, 'held_out'])} held out, {documents.num_overlapping[domain]} overlap "
            f"an evaluation text, {documents.num_repeated[domain]} repeated"
        )
    return documents


def tokenize(texts: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """uint16 [num_tokens]: the documents in order, each followed by END_OF_TEXT."""
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)], np.uint16)
    parts = [np.empty(0, np.uint16)]
    for start in range(0, len(texts), 256):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 256]):
            parts += [np.array(encoding.ids, np.uint16), end]
    return np.concatenate(parts)


def facts(documents: Documents, tokens: dict[str, np.ndarray]) -> dict:
    """What the model card says about the data, JSON-ready."""

    def of(domain: str, split: str) -> dict:
        texts = documents.texts[domain, split]
        return {
            "documents": len(texts),
            "utf8_bytes": sum(len(text.encode()) for text in texts),
            "tokens": len(tokens[f"{domain}.{split}"]),
        }

    return {
        domain: {split: of(domain, split) for split in SPLITS}
        | {"overlapping": documents.num_overlapping[domain], "repeated": documents.num_repeated[domain]}
        for domain in dict.fromkeys(domain for domain, _ in documents.texts)
    }


def prepare(data: pathlib.Path, output: pathlib.Path, domains: tuple[str, ...], vocab_size: int) -> None:
    documents = collect(data, domains)
    say("learning the tokenizer")
    training_texts = itertools.chain.from_iterable(documents.texts[domain, "train"] for domain in domains)
    tokenizer = train_tokenizer(training_texts, vocab_size)
    say("tokenizing")
    tokens = {f"{domain}.{split}": tokenize(texts, tokenizer) for (domain, split), texts in documents.texts.items()}
    with new_folder(output) as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
        say("compressing")
        batches.write_corpus(folder / "corpus.xz", tokens, json.dumps(facts(documents, tokens)))
    say(f"wrote {output}: {sum(map(len, tokens.values())):,} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=pathlib.Path("../shared/data"),
        metavar="FOLDER",
        help="holds corpora/ and eval/ (default: ../shared/data)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("build/training/corpus"),
        metavar="FOLDER",
        help="what is there is replaced (default: build/training/corpus)",
    )
    arguments = parser.parse_args()
    try:
        prepare(arguments.data, arguments.output, corpus.DOMAINS, VOCAB_SIZE)
    except OSError as error:
        sys.exit(f"prepare: {error}")


if __name__ == "__main__":
    main()
