"""When the headless_host role takes a desktop away: only where it is a burden to a card that computes."""

import pytest

from tests.templates.render import render

CARD, OTHER = "0000:01:00.0", "0000:00:02.0"


@pytest.mark.parametrize(
    ("desktop", "monitors", "unwanted"),
    [
        ("off", [CARD], True),
        ("off", [CARD, OTHER], True),
        ("off", [OTHER], False),  # its monitor hangs on another card
        ("off", [], True),  # nobody looks at it, and it may sit on any card
        ("kept", [CARD], False),
    ],
)
def test_a_desktop_is_unwanted(desktop, monitors, unwanted):
    found = render(
        "headless_host",
        "{{ __headless_host_unwanted }}",
        headless_host_desktop=desktop,
        headless_host_cards=[CARD],
        headless_host_monitors=monitors,
    )
    assert found is unwanted
