"""The directories of sandboxes: state that is removed with a host, and a cache that may be deleted at any time."""

from pathlib import Path

import platformdirs

_APP = "zorac-deploy"


def hosts() -> Path:
    """One directory per sandbox host."""
    return platformdirs.user_state_path(_APP) / "sandbox"


def cache() -> Path:
    """Base images, the demo model, and uv's download cache."""
    return platformdirs.user_cache_path(_APP)
