"""Boot a sandbox host that has the engine: it is installed once, as `up` does it, and kept beside the image.

What a host does with a new engine is tested by the one that begins without: tests/host/test_deployment.
"""

import argparse
import hashlib
import os
import shutil
import subprocess

from zorac_deploy import content
from zorac_deploy.sandbox import host, image, paths

_ROLE = content.root() / "roles" / "engine"
_PLAYBOOK = content.root() / "molecule" / "shared" / "engine.yml"
_BUILDER = "engine-layer"


def ensure():
    """The layer with the engine. Its name is a digest of the role: another role installs it again."""
    digest = hashlib.sha256()
    for file in sorted(path for path in _ROLE.rglob("*") if path.is_file() and path.suffix != ".md"):
        digest.update(str(file.relative_to(_ROLE)).encode() + file.read_bytes())
    layers = paths.cache() / "layers"
    layer = layers / f"{image.path('debian12').name}-engine-{digest.hexdigest()[:8]}"
    with paths.locked(layers):
        if not layer.is_dir():
            for old in layers.glob("*-engine-*"):
                shutil.rmtree(old)
            _make(layer)
    return layer


def _make(layer):
    host.down(_BUILDER)
    made = host.up(_BUILDER)
    try:
        inventories = ["--inventory", str(content.profiles()), "--inventory", str(made.inventory)]
        environment = os.environ | {"ANSIBLE_CONFIG": str(content.ansible_config())}
        subprocess.run(["ansible-playbook", *inventories, str(_PLAYBOOK)], check=True, env=environment)
        partial = layer.with_name(f"{layer.name}.partial")  # between two file systems, it is copied
        host.keep(_BUILDER, partial)
        partial.rename(layer)
    finally:
        host.down(_BUILDER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    host.up(parser.parse_args().name, layer=ensure())
