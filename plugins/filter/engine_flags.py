"""Ansible filters: convert the engine's settings; see `zorac_deploy.engine_settings`."""

from collections.abc import Callable, Mapping


def engine_flags(settings: Mapping[str, object], server: str) -> dict[str, object]:
    """The flags of `server`, vllm or llama_cpp, for the settings."""
    from zorac_deploy import engine_settings  # here: `require_package` reports a missing package

    return engine_settings.flags(settings, server)  # type: ignore[arg-type]


def planner_settings(settings: Mapping[str, object], server: str) -> dict[str, object]:
    """The settings that change the memory of `server`."""
    from zorac_deploy import engine_settings

    return engine_settings.planned(settings, server)  # type: ignore[arg-type]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """The filters of this file."""
        return {function.__name__: function for function in (engine_flags, planner_settings)}
