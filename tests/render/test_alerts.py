"""An alert's record has placeholders in its texts."""

import pytest

from scaleobs._render.alerts import fill_in
from scaleobs._render.rules import plan


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (1, "{{ $value }} of {{ $labels.job }} within 5m, 15m, 1h30m"),
        (300, "{{ $value }} of {{ $labels.job }} within 1s, 3s, 18s"),
    ],
)
def test_placeholders_are_filled_in_and_templates_left(scale, text):
    """
    Durations are on the scale of the rules; the templates of Prometheus are not changed.
    """
    scope = plan("orders", time_scale=scale).scope

    assert text == fill_in("{{ $value }} of {job} within {window}, {15m}, {1h30m}", scope)


def test_unknown_placeholder_is_refused():
    """
    Otherwise a typing error would appear in a message at night.
    """
    with pytest.raises(ValueError, match="'windwo' is no duration"):
        fill_in("within {windwo}", plan("orders").scope)
