"""The page of a scrape."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Page(dict):
    """The values of one scrape, by name and labels; `worker` is the pid that answered."""

    def __init__(self, status, worker, text, *, is_openmetrics):
        self.status, self.worker, self.text = status, worker, text
        families = list((parse_openmetrics if is_openmetrics else parse_text)(text))
        self.kinds = {family.name: family.type for family in families}
        self.families = [family.name for family in families]
        samples = [sample for family in families for sample in family.samples]
        self.exemplars = [sample.exemplar.labels for sample in samples if sample.exemplar]
        super().__init__(((one.name, tuple(sorted(one.labels.items()))), one.value) for one in samples)
        self.is_repeated = len(self) != len(samples)

    def total(self, name, **labels):
        """Return the sum of all series of a name with these labels."""
        expected = set(labels.items())
        return sum(value for (other, found), value in self.items() if other == name and expected <= set(found))

    def sent(self):
        """Return how many requests it shows by path template and status."""
        return {
            (dict(labels)["route"], dict(labels)["status_code"]): value
            for (name, labels), value in self.items()
            if name == "http_requests_total" and value
        }

    def counters(self):
        """Return all values that may never fall."""
        ends = ("_total", "_count", "_sum", "_bucket")
        return {key: value for key, value in self.items() if key[0].endswith(ends)}

    @property
    def in_flight(self):
        """How many requests are open."""
        return self.total("active_connections", protocol="http")

    @property
    def workers(self):
        """How many workers there are."""
        return self.total("scaleobs_workers")
