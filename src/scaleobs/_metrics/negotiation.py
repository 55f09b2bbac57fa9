"""The format and the encoding that a scrape or a probe prefers (RFC 9110, sections 12.4.2 to 12.5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_MAX_ENTRIES = 64
"""How many entries of a header are read: a real one has five, and each costs time."""


class Offer(NamedTuple):
    """A media type that can be served; the parameters are what a request may insist on."""

    type: str
    parameters: dict[str, str]


class _Entry(NamedTuple):
    """One element of a header: a name, its parameters and its weight."""

    name: str
    parameters: dict[str, str]
    weight: float


def preferred(accept: str, offers: Sequence[Offer]) -> Offer:
    """
    Return the preferred offer, or the first one if the request accepts none.

    The answer is never 406, an error that would set `up` to 0: text serves a client with an unusual `Accept` better.
    An offer's weight is that of the most specific entry that it matches. Among equal weights the offer that is named
    more specifically wins, then the one that is named earlier.
    """
    entries = list(_entries(accept))
    best, best_rank = offers[0], (0.0, 0, 0)
    for offer in offers:
        matches = [(_specificity(entry, offer), -at, entry.weight) for at, entry in enumerate(entries)]
        specificity, at, weight = max(matches, default=(0, 0, 0.0))
        rank = (weight, specificity, at)
        if specificity and weight and rank > best_rank:
            best, best_rank = offer, rank
    return best


def is_gzip_accepted(accept_encoding: str) -> bool:
    """Return whether gzip is acceptable, and the identity isn't liked better."""
    weights = {entry.name: entry.weight for entry in _entries(accept_encoding)}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _specificity(entry: _Entry, offer: Offer) -> int:
    """Return how closely an entry names an offer, 0 if it names another."""
    if entry.name == "*/*":
        return 1
    if entry.name == offer.type.partition("/")[0] + "/*":
        return 2
    if entry.name != offer.type:
        return 0
    shared = entry.parameters.keys() & offer.parameters.keys()
    if any(entry.parameters[name] != offer.parameters[name].lower() for name in shared):
        return 0
    return 3 + len(shared)


def _entries(header: str) -> Iterator[_Entry]:
    for element in header.lower().split(",", _MAX_ENTRIES)[:_MAX_ENTRIES]:
        name, *pieces = (piece.strip() for piece in element.split(";"))
        pairs = (piece.partition("=") for piece in pieces)
        parameters = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        yield _Entry(name, parameters, _weight(parameters.pop("q", "1")))


def _weight(text: str) -> float:
    """Return a weight within 0 and 1; what is no number counts as 0."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return min(weight, 1.0) if weight > 0 else 0.0
