"""Create the quantized model: run the program in its environment, and rename the output into place."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zorac_deploy import __version__, content, environments, scratch
from zorac_deploy.errors import REFUSALS, Refused
from zorac_deploy.models import Resolved
from zorac_deploy.models.fetched import fetched
from zorac_deploy.models.source import local_name
from zorac_deploy.quantize.job import Job
from zorac_host import model_manifest
from zorac_host.refusal import Refusal

_PROGRAM = Path(__file__).with_name("program.py")
# Files that are rewritten, and files that describe only the source.
_NOT_COPIED = (
    "*.safetensors*",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
    "*.gguf",
    "config.json",
    "README.md",
    ".*",
)


@dataclass(frozen=True)
class Event:
    """The progress.

    Attributes:
        doing: The current step.
        layer: The layers done; None if the step has no layers.
        layers: The number of layers.
    """

    doing: str
    layer: int | None = None
    layers: int | None = None


@dataclass(frozen=True)
class Made:
    """The output: its directory, and the content of its quantization.json."""

    folder: Path
    card: dict[str, Any]


def make(job: Job, log: Path, on_event: Callable[[Event], None]) -> Made:
    """Do `job`. The output directory appears when it is complete; until then its name ends in ``.partial``.

    Args:
        job: The job.
        log: The file for the libraries' output.
        on_event: Called with the progress.

    Raises:
        Refused: It failed, or another run does the same.
        ZoracDeployError: The environment could not be installed.
    """
    began = time.monotonic()
    with _partial(job.output) as partial:
        source = fetched(job.model, lambda note: on_event(Event(f"download the model: {note}")))
        if not environments.is_there(*job.environment):
            on_event(Event("install llmcompressor"))
        python = environments.ensure(*job.environment)
        results = _run(python, job, source, partial, log, on_event)
        on_event(Event("complete the directory"))
        _complete(source, partial)
        card = _card(job, results, partial, time.monotonic() - began)
        (partial / "quantization.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(content.render("model-card.md.j2", **card), encoding="utf-8")
        _check(partial)
        partial.rename(job.output)
    return Made(job.output, card)


@contextmanager
def _partial(output: Path) -> Iterator[Path]:
    """An empty directory beside `output`. One of an earlier run is removed; ours is removed on an error."""
    partial = output.with_name(f"{output.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another run is creating {output}. Wait until it ends.", "settings-invalid") from None
        _empty(partial)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _run(
    python: Path, job: Job, source: Path, partial: Path, log: Path, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    """Run the program, and return its results."""
    results: dict[str, Any] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with scratch.folder() as folder, log.open("w", encoding="utf-8") as errors:
        (folder / "recipe.yaml").write_text(job.recipe.text, encoding="utf-8")
        settings = {
            "source": str(source),
            "output": str(partial),
            "recipe": f"{folder}/recipe.yaml",
            "calibration": job.calibration,
            "samples": job.samples,
            "length": job.length,
            "device": job.device,
        }
        (folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        read_end, write_end = os.pipe()
        # A session of its own, so that Ctrl-C reaches only us; it ends with its standard input.
        process = subprocess.Popen(
            [str(python), str(_PROGRAM), f"{folder}/job.json", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            pass_fds=(write_end,),
            env=_environment(job),
            start_new_session=True,
        )
        os.close(write_end)
        with process, os.fdopen(read_end, encoding="utf-8") as lines:
            try:
                for line in lines:
                    _take(json.loads(line), results, on_event)
            finally:
                process.kill()
    if "perplexity" not in results:
        raise Refused(
            f"{_last_line(log)} All partial files were removed. Full output: {log}",
            "quantize-failed",
        )
    return results


def _take(message: dict[str, Any], results: dict[str, Any], on_event: Callable[[Event], None]) -> None:
    if "fault" in message:
        raise Refused(message["fault"], message["id"] if message["id"] in REFUSALS else "quantize-failed")
    if "doing" in message:
        on_event(Event(message["doing"]))
    elif "layer" in message:
        on_event(Event("quantize", message["layer"], message["of"]))
    else:
        results.update(message)


def _environment(job: Job) -> dict[str, str]:
    """The program may download a data set, but no model; and it uses only the GPUs requested."""
    offline = {} if job.calibration.startswith("hf://") else {"HF_HUB_OFFLINE": "1"}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if job.device == "cpu" else {}
    return {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", **offline, **hidden}


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"llmcompressor failed: {lines[-1][-500:]}." if lines else "llmcompressor was killed. Check the free memory."


def _complete(source: Path, partial: Path) -> None:
    """Copy the source's other files: an older library may not read what transformers writes."""
    skipped = {path for pattern in _NOT_COPIED for path in source.glob(pattern)}
    for path in source.iterdir():
        if path.is_file() and path not in skipped and not path.name.startswith("."):
            shutil.copyfile(path, partial / path.name)
    (partial / "recipe.yaml").unlink(missing_ok=True)  # the model card has it
    written = json.loads((partial / "config.json").read_text(encoding="utf-8"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = written["quantization_config"]
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.chmod(0o755)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors creates files with mode 0600


def _card(job: Job, results: dict[str, Any], partial: Path, seconds: float) -> dict[str, Any]:
    """The model card: the source, the recipe, the results."""
    return {
        "source": {"name": _source_of(job.model), "digest": job.model.manifest["digest"]},
        "recipe": {"name": job.recipe.name, "modifiers": list(job.recipe.modifiers), "text": job.recipe.text},
        "calibration": results["calibration"],
        "seed": results["seed"],
        "perplexity": results["perplexity"],
        "bytes": {
            "before": job.bytes_before,
            "after": sum(path.stat().st_size for path in partial.glob("*.safetensors")),
        },
        "device": job.device,
        "seconds": round(seconds),
        "versions": {"zorac-deploy": __version__, **results["versions"]},
    }


def _source_of(model: Resolved) -> str:
    """The model's public source: a local path is private."""
    return model.source if model.kind == "fetch" else local_name(Path(model.folder))


def _check(partial: Path) -> None:
    try:
        model_manifest.check(partial, tekken=False)
    except Refusal as fault:
        raise Refused(f"the quantized model is incomplete: {fault}", "quantize-failed") from None
