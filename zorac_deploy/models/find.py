"""Find the quantized variants of a model, in the order of Zorac's guide, and which of them fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from huggingface_hub import HfApi, ModelInfo, get_token
from huggingface_hub.hf_api import ExpandModelProperty_T

from zorac_deploy.errors import Refused
from zorac_deploy.models.remote import explained
from zorac_deploy.models.resolve import endpoint
from zorac_deploy.models.source import Hub, parse
from zorac_deploy.planner import Plan

Format = Literal["awq", "gptq", "fp8", "gguf", "smaller"]

# The guide's order: the fastest first; each only if those before it are not available.
ORDER: tuple[Format, ...] = ("awq", "gptq", "fp8", "gguf", "smaller")

# Formats of other engines.
_FOREIGN = {"mlx", "exl2", "exl3", "onnx", "openvino", "coreml", "nvfp4", "bitsandbytes"}
# FP8 is computed from Ada on; on older GPUs vLLM only stores it.
_FP8_COMPUTE = (8, 9)
# The first recommendation of llama.cpp's own quantizer; the guide names no other.
_GGUF_FILES = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q6_K", "Q8_0")
_PER_FORMAT = 3
_LISTED = 200
_EXPAND: list[ExpandModelProperty_T] = ["config", "downloads", "sha", "siblings", "tags"]


@dataclass(frozen=True)
class Variant:
    """A repository with the model in another format.

    Attributes:
        source: The value for ``--model``.
        format: Its format.
        downloads: The downloads of the last month.
        plan: The plan for the GPU; None if the planner has none.
        trouble: Why it cannot be used or planned; empty if it can.
    """

    source: str
    format: Format
    downloads: int
    plan: Plan | None = None
    trouble: str = ""

    @property
    def fits(self) -> bool:
        """Whether it certainly fits."""
        return not self.trouble and self.plan is not None and self.plan.verdict == "fits"

    def summary(self) -> dict[str, object]:
        """The object that `model find --json` prints."""
        return {
            "source": self.source,
            "format": self.format,
            "downloads": self.downloads,
            "fits": self.fits,
            "trouble": self.trouble,
            "plan": self.plan.summary() if self.plan else None,
        }


def variants(
    quantized: Iterable[ModelInfo],
    smaller: Iterable[ModelInfo],
    compute: tuple[int, int] | None,
    judge: Callable[[str], Plan],
) -> Iterator[Variant]:
    """Yield the variants in the guide's order; of each format the most downloaded.

    Args:
        quantized: The repositories that are tagged as a quantized variant of the model.
        smaller: Models of the same author with fewer parameters.
        compute: The GPU's compute capability; None if unknown.
        judge: Reads a source's headers and plans it; raises Refused for what cannot be used.
    """
    candidates = [(_format(info), info) for info in quantized] + [("smaller", info) for info in smaller]
    candidates.sort(key=lambda candidate: -(candidate[1].downloads or 0))
    for name in ORDER:
        for info in [info for link, info in candidates if link == name][:_PER_FORMAT]:
            yield _judged(info, name, compute, judge)


def _judged(info: ModelInfo, name: Format, compute: tuple[int, int] | None, judge: Callable[[str], Plan]) -> Variant:
    source = f"hf://{info.id}@{info.sha}" if info.sha else f"hf://{info.id}"
    file = _gguf_file(info) if name == "gguf" else ""
    variant = Variant(f"{source}/{file}" if file else source, name, info.downloads or 0)
    if name == "fp8" and compute is not None and compute < _FP8_COMPUTE:
        capability = ".".join(map(str, compute))
        return replace(variant, trouble=f"FP8 needs compute capability 8.9, the GPU has {capability}")
    if name == "gguf" and not file:
        return replace(variant, trouble=f"it has no file of {', '.join(_GGUF_FILES)}")
    try:
        return replace(variant, plan=judge(variant.source))
    except Refused as refused:
        return replace(variant, trouble=str(refused))


def _format(info: ModelInfo) -> Format | None:
    """The repository's format in the guide's order; None for none."""
    tags, name = {tag.lower() for tag in info.tags or ()}, info.id.lower()
    if tags & _FOREIGN:
        return None
    if "gguf" in tags:
        return "gguf"
    settings: Mapping[str, Any] = (info.config or {}).get("quantization_config") or {}
    text = f"{settings.get('quant_method', '')} {' '.join(tags)} {name}"
    return next((link for link in ("awq", "gptq", "fp8") if link in text), "awq" if "w4a16" in text else None)


def _gguf_file(info: ModelInfo) -> str:
    """The file to use of a repository with several; empty for none, and for a model in parts."""
    names = [sibling.rfilename for sibling in info.siblings or () if sibling.rfilename.endswith(".gguf")]
    return next((name for kind in _GGUF_FILES for name in names if name.upper().endswith(f"{kind}.GGUF")), "")


def related(source: str) -> tuple[list[ModelInfo], list[ModelInfo]]:
    """The repositories tagged as quantized variants of `source`, and smaller models of the same author.

    Raises:
        Refused: `source` is not on a hub, or the hub cannot be reached.
    """
    base = parse(source)
    if not isinstance(base, Hub):
        raise Refused(f"{source} is not on a hub, so its variants are unknown. Write hf://ORG/NAME.", "model-missing")
    api = HfApi(endpoint=endpoint(), token=get_token() or False)
    with explained(source):
        info = api.model_info(base.repo, expand=["safetensors", "pipeline_tag"])
        quantized = api.list_models(
            filter=f"base_model:quantized:{base.repo}", sort="downloads", limit=_LISTED, expand=_EXPAND
        )
        size = info.safetensors.total if info.safetensors else 0
        smaller = api.list_models(
            author=base.repo.partition("/")[0],
            pipeline_tag=info.pipeline_tag,
            num_parameters=f"max:{size}",
            sort="downloads",
            limit=_LISTED,
            expand=_EXPAND,
        )
        return list(quantized), [model for model in smaller if size and model.id != base.repo]
