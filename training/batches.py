"""The tokens of a prepared corpus, and the order in which training sees them."""

import dataclasses
import json
import lzma
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

# Tokens are 16 bits wide: `pb` and `lp` tell LZMA that the two bytes of a token differ in kind.
LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26, "lc": 3, "lp": 1, "pb": 1}]


def write_corpus(path: pathlib.Path, tokens: dict[str, np.ndarray], facts: str) -> None:
    """Writes an xz-compressed safetensors file: uint16 [num_tokens] for each `domain.split`, and JSON `facts`."""
    content = safetensors.numpy.save(tokens, {"facts": facts})
    path.write_bytes(lzma.compress(content, lzma.FORMAT_XZ, filters=LZMA_FILTERS))


@dataclasses.dataclass
class Corpus:
    """A prepared corpus in memory."""

    tokens: dict[str, np.ndarray]  # `domain.train` and `domain.held_out`: uint16 [num_tokens]
    facts: dict  # by domain: documents, bytes and tokens of each split, and how many documents were left out

    @property
    def domains(self) -> list[str]:
        return list(self.facts)


def read_corpus(path: pathlib.Path) -> Corpus:
    """Reads what write_corpus wrote. @raises ValueError if the file is damaged."""
    try:
        content = lzma.decompress(path.read_bytes())
        tokens = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return Corpus(tokens, json.loads(header["__metadata__"]["facts"]))
    except (lzma.LZMAError, safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is no prepared corpus ({error}); make it again with training.prepare") from None


class Batches:
    """Batches of sequences, a pure function of the step: nothing has to be saved to resume.

    The training tokens of all domains are cut into sequences that share no target; what is left at the end of a
    domain is not used. Each epoch has an order of its own, in which every sequence comes once but for the last ones,
    fewer than batch_sequences, that fill no batch.
    """

    def __init__(self, corpus: Corpus, sequence_tokens: int, batch_sequences: int, seed: int) -> None:
        self.sequence_tokens, self.batch_sequences, self._seed = sequence_tokens, batch_sequences, seed
        rows = [sequences(corpus.tokens[f"{domain}.train"], sequence_tokens) for domain in corpus.domains]
        self._rows = np.concatenate(rows)  # [num_sequences, sequence_tokens + 1]
        if len(self._rows) < batch_sequences:
            raise ValueError(
                f"the corpus has {len(self._rows)} sequences of {sequence_tokens} tokens, "
                f"but a batch takes {batch_sequences}"
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._rows) // self.batch_sequences

    def at(self, step: int) -> np.ndarray:
        """uint16 [batch_sequences, sequence_tokens + 1]: inputs are [:, :-1], targets [:, 1:]."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(len(self._rows))
            self._epoch = epoch
        return self._rows[self._order[index * self.batch_sequences :][: self.batch_sequences]]


def sequences(tokens: np.ndarray, sequence_tokens: int) -> np.ndarray:
    """uint16 [num_sequences, sequence_tokens + 1], each starting at the last token of the one before."""
    num_sequences = max(0, len(tokens) - 1) // sequence_tokens
    if num_sequences == 0:
        return np.empty((0, sequence_tokens + 1), tokens.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, sequence_tokens + 1)
    return windows[::sequence_tokens][:num_sequences]
