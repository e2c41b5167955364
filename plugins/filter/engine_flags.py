"""Ansible filters: what becomes of the engine's settings; see `zorac_deploy.engine_settings`."""

from collections.abc import Callable, Mapping


def engine_flags(settings: Mapping[str, object], server: str) -> dict[str, object]:
    """The flags of `server`, vllm or llama_cpp, for the settings by name."""
    from zorac_deploy import engine_settings  # here, for `require_package` explains its absence

    return engine_settings.flags(settings, server)  # type: ignore[arg-type]


def planner_settings(settings: Mapping[str, object], server: str) -> dict[str, object]:
    """Those of the settings by name that change the memory of `server`."""
    from zorac_deploy import engine_settings

    return engine_settings.planned(settings, server)  # type: ignore[arg-type]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Every filter of this file."""
        return {each.__name__: each for each in (engine_flags, planner_settings)}
