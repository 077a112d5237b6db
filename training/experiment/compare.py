"""Differences of runs, with their intervals, from records."""

import itertools
import math
from typing import NamedTuple

# 97.5 % points of Student's distribution by degrees of freedom: of the means over few seeds.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


class Paired(NamedTuple):
    """A mean of differences, and the half width of its 95 % interval."""

    mean: float
    half_width: float


def _variance(values: list[float]) -> float:
    """Of the mean of `values`, as an estimate; 0 of one value."""
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1) / len(values)


def paired(differences: list[list[float]]) -> Paired:
    """The mean of differences [num_seeds][num_documents], and its interval.

    Documents and seeds are both samples, so their intervals add up as independent errors do: over documents, of the
    means over seeds, 1.96 standard errors; over seeds, of the means over documents, as many as Student's distribution
    says. One seed says nothing about others, and its interval is over documents alone.
    """
    of_documents = [sum(column) / len(column) for column in zip(*differences, strict=True)]
    of_seeds = [sum(row) / len(row) for row in differences]
    squared = 1.96**2 * _variance(of_documents)
    if len(of_seeds) > 1:
        squared += _STUDENT[len(of_seeds) - 1] ** 2 * _variance(of_seeds)
    return Paired(sum(of_seeds) / len(of_seeds), math.sqrt(squared))


def matched(records: list[dict], references: list[dict]) -> list[tuple[dict, dict]]:
    """Each record with the reference of its seed; a reference that was not trained is that of every seed."""
    by_seed = {reference["seed"]: reference for reference in references}
    if not references[0]["trained_tokens"]:
        by_seed |= {record["seed"]: references[0] for record in records}
    pairs = [(record, by_seed[record["seed"]]) for record in records if record["seed"] in by_seed]
    if not pairs:
        raise ValueError(f"no seed of {records[0]['condition']} is one of {references[0]['condition']}")
    return pairs


def loss_difference(records: list[dict], references: list[dict], domain: str | None = None) -> Paired:
    """Loss minus that of the reference by document and seed, in nats per token; of one domain or of all."""
    rows = []
    for record, reference in matched(records, references):
        losses = zip(record["domains"], record["losses"], reference["losses"], strict=True)
        rows.append([loss - other for of, loss, other in losses if domain in (None, of)])
    return paired(rows)


def training_curve(records: list[dict], references: list[dict]) -> list[tuple[int, float]]:
    """(step, difference of the training losses) of each logged step, the mean over seeds: both runs of a seed see the
    same text at each step, and see no text twice.
    """
    curves = []
    for record, reference in matched(records, references):
        both = zip(record["training_loss"], reference["training_loss"], strict=True)
        curves.append([(step, loss - other) for (step, loss), (_, other) in both])
    return [(column[0][0], sum(value for _, value in column) / len(column)) for column in zip(*curves, strict=True)]


class Point(NamedTuple):
    """What a condition costs and saves."""

    name: str
    copies: float  # per token, placed
    imbalance: float
    distinct: float  # experts of 8 tokens, per layer
    loss: Paired  # minus that of its reference


def at_copies(curve: list[Point], copies: float) -> float | None:
    """The difference of loss at so many copies on the straight line between the two neighbours in `curve`, whose
    points may have any order; None outside of the curve.
    """
    points = sorted(curve, key=lambda point: point.copies)
    for low, high in itertools.pairwise(points):
        if low.copies <= copies <= high.copies:
            width = high.copies - low.copies
            share = (copies - low.copies) / width if width else 0.0
            return low.loss.mean + share * (high.loss.mean - low.loss.mean)
    return None
