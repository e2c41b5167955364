"""Generations as the module `generation` creates them on a host."""

import json

from zorac_host import store

UNIT = "vllm.service"
OTHER = "llama-cpp.service"


def made(number, unit=UNIT, **about):
    """A generation whose unit names it, with `about` beside what every generation has."""
    folder = store.ETC / "generations" / str(number)
    folder.mkdir(parents=True)
    (folder / unit).write_text(f"ZORAC_DEPLOY_GENERATION={folder}\n")
    described = {
        "number": number,
        "unit": unit,
        "engine_path": "/opt/engines/a",
        "model": "m",
        "model_path": "/models/m",
        "host": "127.0.0.1",
        "port": 8000,
        "start_timeout_seconds": 9,
        "proof_timeout_seconds": 9,
        "warm": ["true"],
        "disk": [],
        "scratch": [],
    }
    (folder / "generation.json").write_text(json.dumps(described | about))
    return store.generation(number)


def become(generation, state="proved"):
    """Make the generation current, with its activation finished."""
    store.Flip(generation).apply()
    store.set_outcome(generation.number, {"state": state})
    return generation
