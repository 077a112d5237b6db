"""Tables and the figure of the experiment from its records: python3 -m training.experiment.report -o docs

Prints Markdown, and writes the figure `experiment.svg`.
"""

import argparse
import json
import math
import pathlib
import sys
from typing import NamedTuple

from training.card import table
from training.experiment.conditions import CONDITIONS

RANKS = "4"  # of the figure


class Paired(NamedTuple):
    """A mean of differences, and the half width of its 95 % interval."""

    mean: float
    half_width: float
    count: int


def paired(values: list[float], others: list[float]) -> Paired:
    """values - others, by place: mean and 1.96 standard errors, over documents."""
    differences = [a - b for a, b in zip(values, others, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / max(count - 1, 1)
    return Paired(mean, 1.96 * math.sqrt(variance / count), count)


def read_records(folder: pathlib.Path) -> dict[str, list[dict]]:
    """The records of each condition, in the order of CONDITIONS. Raises ValueError if two are not of one experiment."""
    found: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["condition"], []).append(record)
    records = [record for some in found.values() for record in some]
    if not records:
        raise ValueError(f"{folder} has no records; python3 -m training.experiment.driver makes them")
    first = records[0]
    for record in records:
        for key in ("model", "length", "domains", "learning_rate"):
            if record[key] != first[key]:
                raise ValueError(f"the records of {first['condition']} and {record['condition']} have another {key}")
    trained = {record["trained_tokens"] for record in records} - {0}
    if len(trained) > 1:
        raise ValueError(f"runs have {sorted(trained)} tokens, but must have equally many to be compared")
    return {name: found[name] for name in CONDITIONS if name in found}


def losses_of(records: list[dict]) -> list[float]:
    """Of each document, the mean over seeds."""
    return [sum(losses) / len(losses) for losses in zip(*(record["losses"] for record in records), strict=True)]


def reference_of(found: dict[str, list[dict]], name: str) -> str | None:
    """What a condition is compared with: the model without the rule, trained as much; None if it has no record."""
    reference = "before" if CONDITIONS[name].trained == "nothing" else "free"
    return reference if reference in found and reference != name else None


def shown(difference: Paired) -> str:
    return f"{difference.mean:+.4f} ± {difference.half_width:.4f}"


def loss_table(found: dict[str, list[dict]]) -> str:
    domains = next(iter(found.values()))[0]["domains"]
    names = sorted(set(domains), key=domains.index)
    rows = []
    for name, records in found.items():
        losses, reference = losses_of(records), reference_of(found, name)
        row = [name, str(len(records)), f"{sum(losses) / len(losses):.4f}"]
        if reference is None:
            rows.append([*row, "", *("" for _ in names)])
            continue
        others = losses_of(found[reference])
        row.append(shown(paired(losses, others)))
        for domain in names:
            at = [place for place, of in enumerate(domains) if of == domain]
            row.append(shown(paired([losses[p] for p in at], [others[p] for p in at])))
        rows.append(row)
    return table(["condition", "seeds", "loss", "difference", *names], rows)


def _mean(records: list[dict], ranks: str, step: str, key: str) -> float:
    return sum(record["traffic"][ranks][step][key] for record in records) / len(records)


def traffic_table(found: dict[str, list[dict]], ranks: str) -> str:
    steps = ("per-expert", "deduplication", "placement", "one slot")
    rows = [
        [name, *(f"{_mean(records, ranks, step, 'copies_per_token'):.3f}" for step in steps),
         f"{_mean(records, ranks, 'placement', 'imbalance'):.3f}",
         f"{sum(r['distinct_experts_of_8_tokens'] for r in records) / len(records):.2f}"]
        for name, records in found.items()
    ]  # fmt: skip
    return table(["condition", *steps, "imbalance, placed", "distinct experts of 8 tokens"], rows)


class Point(NamedTuple):
    name: str
    copies: float
    loss: Paired


def points(found: dict[str, list[dict]]) -> list[Point]:
    """Copies per token, placed, against the difference of loss; the reference is at zero."""
    result = []
    for name, records in found.items():
        reference = reference_of(found, name) or name
        result.append(Point(name, _mean(records, RANKS, "placement", "copies_per_token"),
                            paired(losses_of(records), losses_of(found[reference]))))  # fmt: skip
    return result


def figure(shown_points: list[Point]) -> str:
    """An SVG: one point a condition, with its interval; filled where the model was trained."""
    width, height, left, top, right, bottom = 760, 420, 70, 20, 200, 50
    xs = [point.copies for point in shown_points]
    ys = [y for point in shown_points for y in (point.loss.mean - point.loss.half_width,
                                                point.loss.mean + point.loss.half_width)]  # fmt: skip
    x_low, x_high = min(xs) - 0.05, max(xs) + 0.05
    margin = 0.05 * (max(ys) - min(ys)) + 1e-4
    y_low, y_high = min(ys) - margin, max(ys) + margin

    def x_of(value: float) -> float:
        return left + (value - x_low) / (x_high - x_low) * (width - left - right)

    def y_of(value: float) -> float:
        return top + (y_high - value) / (y_high - y_low) * (height - top - bottom)

    size = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for step in range(5):
        x, y = x_low + step * (x_high - x_low) / 4, y_low + step * (y_high - y_low) / 4
        parts.append(f'<text x="{x_of(x):.1f}" y="{height - bottom + 16}" text-anchor="middle">{x:.2f}</text>')
        parts.append(f'<text x="{left - 6}" y="{y_of(y) + 4:.1f}" text-anchor="end">{y:+.3f}</text>')
        parts.append(f'<path d="M{left} {y_of(y):.1f}H{width - right}" stroke="#ddd"/>')
    for point in shown_points:
        x, y = x_of(point.copies), y_of(point.loss.mean)
        low, high = (y_of(point.loss.mean + sign * point.loss.half_width) for sign in (-1, 1))
        fill = "white" if CONDITIONS[point.name].trained == "nothing" else "#06c"
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="#06c"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#06c"/>')
        parts.append(f'<text x="{x + 7:.1f}" y="{y - 4:.1f}">{point.name}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">copies per token at '
                 f"{RANKS} ranks, placed</text>")  # fmt: skip
    parts.append(f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" text-anchor="middle">loss minus '
                 "that of free routing, nats per token</text></svg>\n")  # fmt: skip
    return "\n".join(parts)


def report(found: dict[str, list[dict]]) -> str:
    records = [record for some in found.values() for record in some]
    first = records[0]
    trained = max(record["trained_tokens"] for record in records)
    seeds = sorted({record["seed"] for record in records})
    head = (f"{first['model']}, {len(first['domains'])} held-out documents of {first['length']} tokens, {trained:,} tokens "
            f"of continued training at learning rate {first['learning_rate']:g}, seeds {', '.join(map(str, seeds))}; "
            f"{first['machine']}; {sum(record['minutes'] for record in records):.0f} minutes in all.")  # fmt: skip
    intro = (
        "Loss in nats per token, and its paired difference from free routing that was trained as much, with 95 % "
        "intervals over documents:"
    )
    parts = [head, intro, loss_table(found)]
    for ranks in ("2", "4", "8"):
        parts += [f"Copies per token at {ranks} ranks:", traffic_table(found, ranks)]
    return "\n\n".join(parts)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m training.experiment.report", description=__doc__)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("training/experiment/records"))
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("docs"), metavar="FOLDER")
    arguments = parser.parse_args(words)
    try:
        found = read_records(arguments.records)
    except (OSError, ValueError) as error:
        print(f"training.experiment.report: {error}", file=sys.stderr)
        return 1
    print(report(found))
    (arguments.output / "experiment.svg").write_text(figure(points(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
