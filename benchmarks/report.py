"""What was measured: one row for each question, with the bar that we set ourselves; and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")
NAMED = 20
"""Of what there should be none of, so many are named."""


@dataclass(frozen=True)
class Row:
    """One question.

    :param unit: of all figures but the ratio.
    :param ours: median.
    :param raw: median of the plainest way to the same; None: there is none.
    :param peers: median of others, and of what else tells where the time goes.
    :param ratio: median of ours / raw, each of one round; None: there is no raw.
    :param bar: what is asked of us; None: nothing, it is told for comparison.
    :param met: whether we meet it; None: it could not be measured here, or there is no bar.
    :param samples: every figure that a median is of.
    """

    measure: str
    unit: str
    ours: float | None
    raw: float | None
    peers: Mapping[str, float]
    ratio: float | None
    bar: str | None
    met: bool | None
    samples: Mapping[str, Sequence[float]]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        mark = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        ratio = "" if self.ratio is None else f"   ratio {self.ratio:.2f}"
        judged = f"{mark} ({self.bar})" if self.bar else "for comparison"
        lines = [f"{self.measure} [{self.unit}]: {judged}{ratio}"]
        figures = {"ours": self.ours, "raw": self.raw, **self.peers}
        lines += [f"  {figure:10.3f}  {who}" for who, figure in figures.items() if figure is not None]
        return "\n".join(lines)


def turns(contestants: Sequence[T], runs: int) -> Iterator[tuple[int, T]]:
    """Whose turn it is in which round, in an order that rotates. Of several rounds one before them, 0, warms up."""
    for turn in range(0 if runs > 1 else 1, runs + 1):
        for place in range(len(contestants)):
            yield turn, contestants[(turn + place) % len(contestants)]


def compared(
    measure: str, samples: Mapping[str, Sequence[float]], *, most: float | None = None, bar: str | None = None
) -> Row:
    """Seconds of ``ours`` against ``raw``, and beside all others.

    :param samples: who -> seconds of each round.
    :param most: of the ratio; None: it is told for comparison.
    """
    ratio = median(mine / his for mine, his in zip(samples["ours"], samples["raw"], strict=True))
    return _row(measure, samples, ratio, bar, None if most is None else ratio <= most)


def bounded(measure: str, samples: Mapping[str, Sequence[float]], *, most: float, bar: str) -> Row:
    """As :func:`compared`, with a bound in seconds instead."""
    ratio = median(mine / his for mine, his in zip(samples["ours"], samples["raw"], strict=True))
    return _row(measure, samples, ratio, bar, median(samples["ours"]) <= most)


def none(measure: str, found: int | None, samples: Mapping[str, Sequence[float]]) -> Row:
    """How many there were of what there should be none of; None: nobody could count."""
    met = None if found is None else found == 0
    return Row(measure, "", None if found is None else float(found), None, {}, None, "none", met, samples)


def listed(measure: str, found: Sequence[str]) -> Row:
    """As :func:`none`, of what has names; the first :data:`NAMED` are told."""
    return none(measure, len(found), {each: [1] for each in found[:NAMED]})


def left(measure: str, objects: Sequence[str]) -> Row:
    """As :func:`none`, of objects as ``kind/name``, told by kind."""
    kinds = Counter(name.partition("/")[0] for name in objects)
    return none(measure, len(objects), {kind: [number] for kind, number in kinds.items()})


def _row(measure: str, samples: Mapping[str, Sequence[float]], ratio: float, bar: str | None, met: bool | None) -> Row:
    medians = {who: round(median(taken), 3) for who, taken in samples.items()}
    return Row(
        measure,
        "s",
        medians.pop("ours"),
        medians.pop("raw"),
        medians,
        round(ratio, 3),
        bar,
        met,
        {who: [round(one, 3) for one in taken] for who, taken in samples.items()},
    )
