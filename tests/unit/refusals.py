"""Assert refusals by id."""

import contextlib

import pytest

from zorac_host.refusal import Refusal


@contextlib.contextmanager
def refuses(refusal, says=None):
    """Require that a refusal with this id is raised, and that its message contains the pattern `says`."""
    with pytest.raises(Refusal, match=says) as found:
        yield
    assert found.value.refusal == refusal
