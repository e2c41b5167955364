"""Create a bundle: download what is missing, write it into parts, and rename the directory into place."""

import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from zorac_deploy.bundle import about as contents
from zorac_deploy.bundle import packages, wheels
from zorac_deploy.bundle.about import (
    MODEL,
    MODEL_NAME,
    PACKAGES,
    SOURCES,
    SYSTEMS,
    WHEELS,
    About,
    Engine,
    File,
    Model,
    OnStep,
    Part,
)
from zorac_deploy.bundle.parts import Hashed, Writer, entry
from zorac_deploy.bundle.unpacking import require_room
from zorac_deploy.errors import Refused, ZoracDeployError
from zorac_deploy.models import resolve
from zorac_deploy.models.fetched import fetched
from zorac_deploy.models.source import local_name


@dataclass(frozen=True)
class Wish:
    """The wanted content of a bundle.

    Attributes:
        engine: The name of the engine's lock.
        system: What the hosts run, a key of `SYSTEMS`.
        model: The model's source, as `resolve` takes it.
        with_packages: Whether to include the Debian packages that the engine needs, if this machine runs `system` too.
        more_packages: Further packages to include, such as those of a driver.
    """

    engine: str
    system: str
    model: str
    with_packages: bool = True
    more_packages: tuple[str, ...] = ()


def create(wish: Wish, output: Path, part_size: int, on_step: OnStep = lambda *_: None) -> About:
    """Create a bundle in `output`, which appears complete or not at all.

    Args:
        wish: The wanted content.
        output: The bundle's directory, which does not exist yet.
        part_size: The size of a part in bytes.
        on_step: Called with the step and its object.

    Raises:
        Refused: The engine or the model cannot be bundled, or the disk has no space for it.
        ZoracDeployError: A download failed and will resume on the next run; or `output` cannot be written.
    """
    settings = _settings(wish)
    absent = _absent(wish)
    on_step("read the model", wish.model)
    resolved = resolve(wish.model)
    name, manifest = local_name(Path(resolved.folder).absolute()), resolved.manifest
    _require_plain(name)
    _require_together(wish.engine, name, manifest["format"])
    engine = wheels.engine(wish.engine)
    which = f"{wish.engine}-{engine.lock_sha256[:8]}-{wish.system}"
    downloads = platformdirs.user_cache_path("zorac-deploy") / "bundle-downloads" / which
    partial = output.with_name(f"{output.name}.partial")
    try:
        _make(output, partial)
        names = _download(wish, engine, settings, downloads, on_step)
        model = fetched(resolved, lambda note: on_step("download the model", note)).absolute()
        sources = _sources(downloads, model, name, manifest["files"])
        require_room(partial, sum(path.stat().st_size + 2048 for path in sources.values()), "the bundle")
        parts, files = _write(sources, partial, part_size, on_step)
        _require_unchanged(model, manifest["files"], files)
        made = About(
            system=wish.system,
            python=SYSTEMS[wish.system].python,
            engine=engine,
            model=Model(name=name, source=resolved.source, digest=manifest["digest"], format=manifest["format"]),
            packages=names,
            absent=absent,
            parts=parts,
            files=files,
        )
        contents.write(partial, made)
        partial.rename(output)
        shutil.rmtree(downloads)
    except OSError as fault:
        raise ZoracDeployError(f"cannot create the bundle: {fault}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _download(
    wish: Wish, engine: Engine, settings: Mapping[str, Any], folder: Path, on_step: OnStep
) -> tuple[str, ...]:
    """Download wheels and packages into directories of `folder`; return the names of the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    # Wheels are less than half the size of what they unpack to.
    require_room(folder, int(settings["required_gib"] * 2**29), "the download")
    indexes = settings["extra_index_urls"]
    wheels.download(engine, SYSTEMS[wish.system], indexes, folder, on_step)
    names = [*settings["system_packages"], *wish.more_packages] if _packages_wanted(wish) else []
    return packages.download(names, folder / PACKAGES, on_step)


def _settings(wish: Wish) -> dict[str, Any]:
    settings = wheels.settings(wish.engine)
    python, locked = SYSTEMS[wish.system].python, settings["python_versions"]
    if python not in locked:
        raise Refused(
            f"{wish.system} has Python {python}, but the engine {wish.engine} is locked for {', '.join(locked)}. "
            "Choose another engine, or another system.",
            "engine-no-python",
        )
    return settings


def _packages_wanted(wish: Wish) -> bool:
    return wish.with_packages and packages.system() == wish.system


def _absent(wish: Wish) -> tuple[str, ...]:
    """What the bundle lacks although a user might expect it."""
    absent = []
    if not _packages_wanted(wish):
        why = f"this machine runs {packages.system()}" if wish.with_packages else "--no-packages"
        if wish.more_packages:
            raise Refused(f"--package needs a machine that runs {wish.system}, but {why}.", "settings-invalid")
        absent.append(f"Debian packages ({why}): the host needs the engine's packages installed.")
    if wish.engine.startswith("cuda-") and not wish.more_packages:
        absent.append(
            "an NVIDIA driver: the host needs a working one. To include it, name its packages with --package."
        )
    return tuple(absent)


def _require_plain(name: str) -> None:
    if not re.fullmatch(MODEL_NAME, name):
        raise Refused(
            f"the model's name is {name!r}. In a bundle, a name consists of letters, digits, spaces and _.+-, and "
            "begins with a letter, a digit or _. Rename the model.",
            "settings-invalid",
        )


def _require_together(engine: str, model: str, form: str) -> None:
    if wheels.serves_gguf(engine) != (form == "gguf"):
        other = "vLLM" if wheels.serves_gguf(engine) else "llama.cpp"
        raise Refused(
            f"{model} is a {form} model, which {engine} does not serve. Choose an engine of {other}.",
            "format-unsupported",
        )


def _make(output: Path, partial: Path) -> None:
    if output.exists():
        raise Refused(f"{output} exists. Name a new directory with --output.", "settings-invalid")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _sources(downloads: Path, model: Path, model_name: str, model_files: Iterable[str]) -> dict[str, Path]:
    """The local path of each file, by its path in the bundle."""
    tops = (WHEELS, SOURCES, PACKAGES)
    sources = {f"{top}/{path.name}": path for top in tops for path in sorted((downloads / top).glob("*"))}
    for name in model_files:
        inside = Path(MODEL, model_name, name) if model.is_dir() else Path(MODEL, name)
        sources[str(inside)] = (model if model.is_dir() else model.parent) / name
    return sources


def _write(
    sources: Mapping[str, Path], folder: Path, part_size: int, on_step: OnStep
) -> tuple[tuple[Part, ...], tuple[File, ...]]:
    files = []
    with (
        Writer(folder, part_size, on_step) as parts,
        tarfile.open(fileobj=parts, mode="w|", bufsize=1 << 20) as archive,
    ):
        for name, path in sources.items():
            size = path.stat().st_size
            with path.open("rb") as file:
                hashed = Hashed(file)
                archive.addfile(entry(name, size), hashed)
            files.append(File(path=name, size=size, sha256=hashed.hexdigest()))
    return tuple(parts.parts), tuple(files)


def _require_unchanged(model: Path, before: Mapping[str, Mapping[str, Any]], written: tuple[File, ...]) -> None:
    digests = {file.sha256 for file in written if file.path.startswith(f"{MODEL}/")}
    if digests != {file["sha256"] for file in before.values()}:
        raise Refused(f"{model} changed while it was read. Re-run the command.", "model-damaged")
