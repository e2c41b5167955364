"""The settings of a profile or a host, and their valid values."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from zorac_deploy import content
from zorac_deploy.engine_settings import SETTINGS
from zorac_deploy.errors import Refused


class _Profile(BaseModel):
    """The settings in inventory/group_vars/ of our own profiles, and of a user's own.

    Variables of the roles, such as ``vllm_service_extra_flags``, may be set too; their types are in the roles'
    argument_specs.yml, and Ansible checks them.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model_server: Literal["auto", "vllm", "llama_cpp"] = "auto"
    vllm_profile: str = ""
    vllm_engine_lock: str = ""
    llama_cpp_engine_lock: str = ""
    vllm_environment: dict[str, str | int | float] = {}
    vllm_card_environment: dict[str, str] = {}


_FIELDS: dict[str, Any] = {setting.variable: (setting.type, setting.default) for setting in SETTINGS}
Profile = create_model("Profile", __base__=_Profile, **_FIELDS)


def check(host: str, variables: Mapping[str, object]) -> None:
    """Require that the `variables` of `host` with our prefixes have known names and valid values.

    A template's result is not known here, and not checked.

    Raises:
        Refused: A name or a value is invalid; the message says which, and what is valid.
    """
    roles = _role_variables()
    prefixes = ("vllm_", "model_", *{f"{role}_" for role in roles})
    known = {*Profile.model_fields, *(name for names in roles.values() for name in names)}
    settings = {name: value for name, value in variables.items() if name.startswith(prefixes)}
    for name in sorted(set(settings) - known):
        near = difflib.get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise Refused(f"{host} sets {name}, which is not a setting.{meant}", "settings-invalid")
    values = {
        name: value for name, value in settings.items() if name in Profile.model_fields and not _is_template(value)
    }
    try:
        Profile.model_validate(values)
    except ValidationError as fault:
        first = fault.errors()[0]
        name = str(first["loc"][0])
        raise Refused(f"{name} of {host} is {values[name]!r}: {first['msg']}.", "settings-invalid") from None


def _role_variables() -> dict[str, set[str]]:
    variables = {}
    for role in (content.root() / "roles").iterdir():
        specs = content.data(role / "meta" / "argument_specs.yml")["argument_specs"]
        variables[role.name] = {name for entry in specs.values() for name in entry.get("options", {})}
    return variables


def _is_template(value: object) -> bool:
    """Whether Ansible replaces `value`: a template, or a secret."""
    if isinstance(value, Mapping):
        return any(name.startswith("__ansible_") or _is_template(item) for name, item in value.items())
    return isinstance(value, str) and "{{" in value
