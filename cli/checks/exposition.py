"""What a sidecar's metrics say, read from Prometheus' text: the few series that checks look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

# Everything that checks ask for begins so; of Istio's series there may be thousands.
_PREFIX: Final = "qbitel_"
# Of a histogram's series none is asked for, and each has a dozen.
_LEFT_OUT: Final = "_bucket{"

Figures = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read_figures(text: str) -> Figures:
    """The series of `text` that are ours: (name, sorted labels) → value. ValueError where it is none of Prometheus'."""
    figures: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    for line in text.splitlines():
        if not line.startswith(_PREFIX) or _LEFT_OUT in line:
            continue
        try:
            # One by one: without their types each is a family of its own, under the name that it stands there with.
            samples = [sample for family in text_string_to_metric_families(f"{line}\n") for sample in family.samples]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ValueError("a line is not in Prometheus' format") from None
        for sample in samples:
            figures[sample.name, tuple(sorted(sample.labels.items()))] += sample.value
    return dict(figures)
