"""When the headless_host role stops a desktop: only if it uses a GPU that computes."""

import pytest

from tests.templates.render import render

CARD, OTHER = "0000:01:00.0", "0000:00:02.0"


@pytest.mark.parametrize(
    ("desktop", "monitors", "unwanted"),
    [
        ("off", [CARD], True),
        ("off", [CARD, OTHER], True),
        ("off", [OTHER], False),  # its monitor is connected to another GPU
        ("off", [], True),  # without a monitor, it may use any GPU
        ("kept", [CARD], False),
    ],
)
def test_when_a_desktop_is_stopped(desktop, monitors, unwanted):
    found = render(
        "headless_host",
        "{{ __headless_host_unwanted }}",
        headless_host_desktop=desktop,
        headless_host_cards=[CARD],
        headless_host_monitors=monitors,
    )
    assert found is unwanted
