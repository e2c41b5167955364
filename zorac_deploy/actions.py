"""What the roles' action plugins do on the controller: take a task's arguments, return its result.

A refusal is a failed result with its message, and with `refusal` as data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, TypeAdapter
from pydantic import ValidationError as Invalid

from zorac_deploy import __version__, compatibility, driver, engine_settings, errors, models
from zorac_deploy.desired import Difference, Document
from zorac_deploy.errors import REFUSALS, Refused
from zorac_deploy.models import family
from zorac_deploy.planner import Card, Engine, Flags, Plan, Setup, fit
from zorac_deploy.planner.engine import DEFAULT_VERSION

# The driver's own reserve, which CUDA does not see: 480 MiB on the GPUs measured.
_RESERVED_MIB = 480

_Arguments = TypeVar("_Arguments", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class ModelArguments(_Strict):
    """The arguments of resolve_model."""

    source: str
    name: str = ""
    tekken: bool = False
    pickle: bool = False
    refresh: bool = False
    hub: str = ""
    token: str = ""


class CompatibilityArguments(_Strict):
    """The arguments of check_compatibility, as the role gpu_compatibility documents them."""

    facts: dict[str, Any]
    engine: str
    kv_cache_dtype: str = "auto"
    driver: str = ""
    cards: list[str] = []
    gpu_memory_utilization: float | None = None
    units: list[str] = []


class DriverArguments(_Strict):
    """The arguments of check_driver, see `driver.check`."""

    facts: dict[str, Any]
    wanted: driver.Wanted
    host: str
    audit: list[str]
    console_attended: bool


class FlagArguments(_Strict):
    """The arguments of check_vllm_flags."""

    flags: dict[str, Any]


class _Gpu(BaseModel):
    """A GPU as the role nvidia_facts reports it."""

    name: str = ""
    compute: str | None = None
    total_mib: PositiveFloat | None = None
    reserved_mib: NonNegativeFloat | None = None


class MemoryArguments(_Strict):
    """The arguments of plan_memory, as the role memory_plan documents them.

    Attributes:
        host_memory_mib: The host's memory, where the engine computes on the CPU; None where it computes on GPUs.
    """

    model: Path
    engine: str
    cards: list[_Gpu] = []
    kv_cache_memory_gib: NonNegativeFloat = 0
    host_memory_mib: PositiveFloat | None = None
    max_model_len: Annotated[Literal["auto"] | PositiveInt, Field(union_mode="left_to_right")] = "auto"
    least_max_model_len: PositiveInt = 1
    environment: dict[str, Any] = {}
    flags: dict[str, Any] = {}

    @property
    def gpu(self) -> _Gpu:
        """The smallest of the GPUs: tensor parallelism splits the model evenly."""
        return min((gpu for gpu in self.cards if gpu.total_mib), key=lambda gpu: gpu.total_mib or 0, default=_Gpu())

    @property
    def memory_gib(self) -> float | None:
        """The memory that the engine sees; None if unknown."""
        if self.kv_cache_memory_gib:
            return self.kv_cache_memory_gib
        if self.host_memory_mib:
            return self.host_memory_mib / 1024
        if not self.gpu.total_mib:
            return None
        reserved = _RESERVED_MIB if self.gpu.reserved_mib is None else self.gpu.reserved_mib
        return (self.gpu.total_mib - reserved) / 1024


def resolve_model(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve a model's files with `models.resolve`, and choose vLLM's flags for its family."""
    try:
        request = _checked(ModelArguments, arguments).model_dump()
        _require_name(request.pop("name"))
        model = models.resolve(request.pop("source"), **request)
        return {**model.summary(), "family": family.served(Path(model.folder)).summary()}
    except Refused as refused:
        return failed(refused)


def _require_name(name: str) -> None:
    """Require a valid directory name without `$`, which begins a variable in Ansible."""
    if not name.isprintable() or set("/$") & set(name) or name.startswith((".", "-")):
        raise Refused(
            f"model_weights_name is {name!r}, but a directory's name has no '/', '$' or control characters, and does "
            "not begin with '.' or '-'. Set another name.",
            "settings-invalid",
        )


def hub_token(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The given hub token, or else the user's own; empty for none."""
    from huggingface_hub import get_token  # here: the import is slow

    return {"token": arguments.get("token") or get_token() or ""}


def plan_memory(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Plan the engine's memory with `planner.fit`.

    Without a known memory size there is no plan. A model that the planner does not know has no plan either, and is
    served with the context that the user set.
    """
    facts: dict[str, Any] = {}
    try:
        request = _checked(MemoryArguments, arguments)
        if request.memory_gib is None:
            return {"skipped": True, "msg": "the GPU's memory is unknown until a driver works"}
        setup = _setup(request, request.memory_gib)
        facts["memory_plan_setup"] = setup.summary()
        try:
            plan = fit(request.model, setup)
        except Refused as refused:
            if refused.refusal != "model-unknown" or not setup.flags.max_model_len:
                raise
            return {**facts, "msg": str(refused)}
        name = request.gpu.name or "the CPU"
        card = {"name": name, "compute": request.gpu.compute, "count": len(request.cards)}
        facts["memory_plan_result"] = {**plan.summary(), "card": card}
        if plan.verdict == "refused":
            raise _does_not_fit(request, plan, name)
    except Refused as refused:
        return failed(refused, facts)
    return facts


def desired_state(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The desired state that `arguments` describe; parts are given by role.

    A part may have ``paths`` for several files or directories that differ only in their path.
    """
    try:
        parts = [
            {"owner": owner, **part, **path}
            for owner, own in arguments["parts"].items()
            for part in map(dict, own)
            for path in [{"path": name} for name in part.pop("paths", ())] or [{}]
        ]
        document = Document.model_validate({**arguments, "parts": parts, "tool": __version__})
        return {"document": document.model_dump(mode="json", by_alias=True, exclude_none=True)}
    except Invalid as fault:
        return failed(_invalid(fault))


def applied(document: Mapping[str, Any], answer: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The result of recording `document`, given the host's `answer`: a refusal if the host differs."""
    facts = {"desired_state_document": dict(document)}
    left = [Difference.model_validate(difference) for difference in answer["differences"]]
    if not left or check:
        return {"changed": bool(left), "ansible_facts": facts}  # the record itself does not change the host
    lines = "\n".join(f"  {difference}" for difference in left)
    return failed(
        Refused(
            f"{document['host']} was deployed, but still differs from the inventory:\n{lines}\nRe-run the command. If "
            "the same differences come back, another program on the host changes them: find it and stop it.",
            "drift-left",
        ),
        facts,
    )


def check_compatibility(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the GPUs to compute on and the kernel modules, returned as ``result``."""
    try:
        request = _checked(CompatibilityArguments, arguments)
        lock = compatibility.locked()
        choice = compatibility.decide(
            request.facts, lock, request.engine, request.kv_cache_dtype, request.driver or None, request.cards
        )
        if request.gpu_memory_utilization is not None:
            compatibility.check_memory(request.facts, choice["selected"], request.gpu_memory_utilization, request.units)
    except Refused as refused:
        return failed(refused)
    return {"result": choice}


def check_driver(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a host whose driver does not work and cannot be installed."""
    try:
        request = _checked(DriverArguments, arguments)
        driver.check(request.facts, request.wanted, request.host, request.audit, request.console_attended)
    except Refused as refused:
        return failed(refused)
    return {}


def check_vllm_flags(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse invalid vLLM flags, and tool calls without a parser."""
    try:
        flags = _checked(FlagArguments, arguments).flags
        for needed in ("model", "served_model_name"):
            if not flags.get(needed):
                raise Refused(f"vllm_service_flags has no {needed}. Set it.", "settings-invalid")
        engine_settings.check(flags)
        if flags.get("enable_auto_tool_choice") and not flags.get("tool_call_parser"):
            raise Refused(
                "vllm_enable_auto_tool_choice is true, but no parser is known for this model's tool calls. "
                "Set vllm_tool_call_parser to one of vLLM's parsers, or vllm_enable_auto_tool_choice to auto.",
                "settings-invalid",
            )
    except Refused as refused:
        return failed(refused)
    return {}


def refuse(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a task that refuses with a role's ``id`` and ``message``."""
    return failed(Refused(str(arguments["message"]), arguments["id"]))


def host_answer(done: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The result of a task that ran the host program of `host`: its ``answer``, or its refusal."""
    if refusal := errors.refused(done["stdout"]):
        return failed(Refused(f"{host}: {refusal}", refusal.refusal))
    if done["rc"] != 0:
        return {"failed": True, "msg": done["stderr"].strip() or f"exit code {done['rc']}"}
    try:
        answer = json.loads(done["stdout"])
    except ValueError:
        return {"failed": True, "msg": f"the host program answered {done['stdout'][:200]!r}"}
    result = answer if isinstance(answer, dict) else {}
    return {"changed": bool(result.get("changed")), "answer": answer, "diff": result.get("diff", [])}


def failed(refused: Refused, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The failed result for a refusal. Ansible drops facts of a failed task; our runner reads them from here."""
    return {
        "failed": True,
        "msg": f"[{refused.refusal}] {refused}",
        "refusal": {"id": refused.refusal, "message": str(refused), "exit_code": REFUSALS[refused.refusal].exit_code},
        "ansible_facts": dict(facts or {}),
    }


def _checked(kind: type[_Arguments], arguments: Mapping[str, Any]) -> _Arguments:
    try:
        return kind.model_validate(arguments)
    except Invalid as fault:
        raise _invalid(fault) from None


def _setup(request: MemoryArguments, memory_gib: float) -> Setup:
    """The setup that the planner plans for."""
    remaining = {name: value for name, value in request.flags.items() if value is not None}
    dtype = str(remaining.pop("dtype", "auto"))
    length = remaining.pop("max_model_len", None) or request.max_model_len
    flags = {name: remaining.pop(name) for name in engine_settings.PLANNED if name in remaining}
    flags["max_model_len"] = 0 if length == "auto" else length
    flags["least_max_model_len"] = request.least_max_model_len
    flags["kv_cache_memory_gib"] = request.kv_cache_memory_gib or None
    count = 1 if request.kv_cache_memory_gib else len(request.cards)
    version = DEFAULT_VERSION if request.engine.startswith("llama-cpp") else request.engine
    try:
        checked = TypeAdapter(Flags).validate_python(flags)
    except Invalid as fault:
        raise _invalid(fault) from None
    settings = {name: str(value) for name, value in {**remaining, **request.environment}.items()}
    return Setup(Card(memory_gib, None, request.gpu.name, count), Engine.parse(version), checked, dtype, settings)


def _invalid(fault: Invalid) -> Refused:
    error = fault.errors()[-1]
    return Refused(f"{error['loc'][0]} is {error['input']!r}: {error['msg']}.", "settings-invalid")


def _does_not_fit(request: MemoryArguments, plan: Plan, card: str) -> Refused:
    where = "into the fixed KV cache" if request.kv_cache_memory_gib else f"on {card} with these settings"
    cure = "Use a smaller or a quantized model, or a larger vllm_gpu_memory_utilization."
    if plan.largest_max_model_len:
        cure = f"Set vllm_max_model_len to at most {plan.largest_max_model_len}."
    return Refused(
        f"{request.model.name} does not fit {where}. The engine would report: {plan.reason} {cure} "
        "Show the sizes with: zorac-deploy plan",
        "model-does-not-fit",
    )
