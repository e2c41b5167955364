"""Read a recipe of llmcompressor, and check that it is compatible with a model."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zorac_deploy.errors import Refused
from zorac_deploy.models.source import local_path

_FOLDER = Path(__file__).parent / "recipes"
_QUANTIZING = ("QuantizationModifier", "GPTQModifier", "AutoRoundModifier")
# They transform weights to reduce the loss; another modifier quantizes them.
_PREPARING = ("AWQModifier", "SmoothQuantModifier", "QuIPModifier", "SpinQuantModifier")
# compressed-tensors's schemes by name: bits per weight, and how many weights share a scale (0: a row, or a square).
_SCHEMES = {
    "W4A16": (4, 128),
    "W4A16_ASYM": (4, 128),
    "W4AFP8": (4, 128),
    "W4A8": (4, 128),
    "W8A16": (8, 128),
    "W8A8": (8, 0),
    "INT8": (8, 0),
    "FP8": (8, 0),
    "FP8_DYNAMIC": (8, 0),
    "FP8_BLOCK": (8, 0),
    "NVFP4": (4, 16),
    "NVFP4A16": (4, 16),
    "MXFP4": (4, 32),
    "MXFP4A16": (4, 32),
    "MXFP8": (8, 32),
    "MXFP8A16": (8, 32),
}
GROUP_SIZES = (128, 64, 32)  # supported by vLLM's kernels


@dataclass(frozen=True)
class Layer:
    """A linear layer of a model: its name, and the sizes of its matrix."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Group:
    """Layers with one quantization scheme.

    Attributes:
        targets: Names of layers, patterns after ``re:``, or ``Linear`` for all.
        bits: Bits of a weight.
        size: How many weights share a scale; 0 for a row, or a square.
    """

    targets: tuple[str, ...]
    ignore: tuple[str, ...]
    bits: int
    size: int


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe.

    Attributes:
        name: Its name.
        text: Its YAML, with the requested group size.
        modifiers: The names of its modifiers, in order.
        groups: Its groups.
    """

    name: str
    text: str
    modifiers: tuple[str, ...]
    groups: tuple[Group, ...]

    def group_of(self, layer: Layer) -> Group | None:
        """The group of `layer`; None if it is not quantized."""
        for group in self.groups:
            if _named(layer, group.targets) and not _named(layer, group.ignore):
                return group
        return None


def shipped() -> tuple[str, ...]:
    """The names of the recipes that come with zorac-deploy."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def read(name: str, group_size: int | None = None) -> Recipe:
    """Read the recipe called `name`, or the file `name`.

    Args:
        name: One of `shipped`, or a path.
        group_size: Overrides its group size.

    Raises:
        Refused: It does not exist, or is invalid.
    """
    path = _FOLDER / f"{name}.yaml" if name in shipped() else local_path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _invalid(
            f"recipe not found: {name}. Use one of {', '.join(shipped())}, or the path of a YAML file."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _invalid(f"{path} is not YAML: {error}") from None
    modifiers = _modifiers(content, path)
    quantizing = {modifier: settings for modifier, settings in modifiers.items() if modifier in _QUANTIZING}
    for settings in quantizing.values():
        for group in _config_groups(settings).values():
            _resize(group, group_size)
    groups = tuple(group for settings in quantizing.values() for group in _groups(settings, path))
    if group_size and any(group.size not in (0, group_size) for group in groups):
        raise _invalid(
            f"{path.name} names a scheme, whose group size is fixed. Use config_groups instead, as "
            f"{_FOLDER / 'awq-w4a16.yaml'} does, or leave out --group-size."
        )
    return Recipe(path.stem, yaml.safe_dump(content, sort_keys=False), tuple(modifiers), groups)


def check(recipe: Recipe, layers: Sequence[Layer]) -> None:
    """Require that `recipe` names existing layers, and that its groups divide them.

    Raises:
        Refused: It does not.
    """
    for group in recipe.groups:
        for name in (*group.targets, *group.ignore):
            if not any(_named(layer, (name,)) for layer in layers):
                raise _invalid(f"{recipe.name} names {name}, but the model has no such layer. {_near(name, layers)}")
    taken = [(layer, own_group) for layer in layers if (own_group := recipe.group_of(layer))]
    if not taken:
        raise _invalid(f"{recipe.name} ignores every layer that it targets. Remove layers from ignore.")
    for layer, group in taken:
        if group.size and layer.inputs % group.size:
            fitting = [size for size in GROUP_SIZES if all(other.inputs % size == 0 for other, _ in taken)]
            cure = f"Add --group-size {fitting[0]}" if fitting else "Add the layer to ignore in your own recipe"
            also = f" ({' or '.join(map(str, fitting[1:]))} also works)" if fitting[1:] else ""
            raise _invalid(
                f"{recipe.name} has groups of {group.size} weights, which do not divide the {layer.inputs} inputs "
                f"of {layer.name}. {cure}{also}."
            )


def _modifiers(content: object, path: Path) -> dict[str, dict[str, Any]]:
    """The modifiers of all stages, by name, with their settings."""
    stages = {key: value for key, value in content.items() if _ends(key, "_stage")} if isinstance(content, dict) else {}
    kinds = [
        kind
        for stage in stages.values()
        if isinstance(stage, dict)
        for key, kind in stage.items()
        if _ends(key, "_modifiers")
    ]
    modifiers = {name: settings or {} for kind in kinds if isinstance(kind, dict) for name, settings in kind.items()}
    if not modifiers or not all(isinstance(settings, dict) for settings in modifiers.values()):
        raise _invalid(
            f"{path} has no modifiers under quant_stage and quant_modifiers. See {_FOLDER / 'awq-w4a16.yaml'}."
        )
    for name in modifiers:
        if name not in (*_QUANTIZING, *_PREPARING):
            near = difflib.get_close_matches(str(name), (*_QUANTIZING, *_PREPARING), 1)
            raise _invalid(
                f"{path.name} has {name}, which is not a quantization modifier. "
                f"{f'Did you mean {near[0]}?' if near else 'Known: ' + ', '.join((*_QUANTIZING, *_PREPARING)) + '.'}"
            )
    if not any(name in _QUANTIZING for name in modifiers):
        raise _invalid(
            f"{path.name} has only {' and '.join(modifiers)}, which does not quantize. Add a "
            "QuantizationModifier after it, and move targets, ignore and scheme there."
        )
    return modifiers


def _groups(settings: Mapping[str, Any], path: Path) -> list[Group]:
    """The groups of one modifier."""
    ignore = _names(settings.get("ignore"))
    groups = []
    for group in _config_groups(settings).values():
        weights = group.get("weights") or {}
        bits, size = weights.get("num_bits"), weights.get("group_size") or 0
        if not isinstance(bits, int) or not isinstance(size, int):
            raise _invalid(f"{path.name} has a group without num_bits, or with a group_size that is not a number.")
        groups.append(Group(_names(group.get("targets")) or ("Linear",), ignore, bits, max(size, 0)))
    scheme = settings.get("scheme")
    schemes = (
        {scheme: settings.get("targets")} if isinstance(scheme, str) else scheme if isinstance(scheme, dict) else {}
    )
    for name, targets in schemes.items():
        if str(name).upper() not in _SCHEMES:
            raise _invalid(f"{path.name} has the unknown scheme {name}. Use one of {', '.join(_SCHEMES)}.")
        groups.append(Group(_names(targets) or ("Linear",), ignore, *_SCHEMES[str(name).upper()]))
    if not groups:
        raise _invalid(f"{path.name} has a quantization modifier without config_groups or scheme. Add one of them.")
    return groups


def _config_groups(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    groups = settings.get("config_groups")
    return (
        {name: group for name, group in groups.items() if isinstance(group, dict)} if isinstance(groups, dict) else {}
    )


def _resize(group: dict[str, Any], size: int | None) -> None:
    weights = group.get("weights")
    if size and isinstance(weights, dict) and weights.get("group_size"):
        weights["group_size"] = size


def _names(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value)) if isinstance(value, list) else ()


def _ends(key: object, ending: str) -> bool:
    return isinstance(key, str) and key.endswith(ending)


def _named(layer: Layer, names: Sequence[str]) -> bool:
    """Whether one of `names` matches `layer`, as in compressed-tensors."""
    for name in names:
        if name in (layer.name, "Linear"):
            return True
        try:
            if name.startswith("re:") and re.match(name[3:], layer.name):
                return True
        except re.error as error:
            raise _invalid(f"{name} is not a regular expression: {error}.") from None
    return False


def _near(name: str, layers: Sequence[Layer]) -> str:
    """Suggestions for a misspelled `name`."""
    ends = sorted({layer.name.rpartition(".")[2] for layer in layers})
    plain = re.sub(r"^re:|[\\^$.*]", "", name).rpartition(".")[2]
    near = difflib.get_close_matches(plain or name, ["Linear", *ends], 3, cutoff=0.5)
    examples = [layer.name for layer in layers if layer.name.endswith(f".{near[0]}")] if near else []
    if examples:
        return f"Similar: {', '.join(near)}. Full names look like {examples[0]}; re:.*{near[0]}$ means all of them."
    return f"It has {', '.join(near or ends)}."


def _invalid(message: str) -> Refused:
    return Refused(message, "recipe-invalid")
