"""Whether a host is in its desired state, so that no role has to run, and why not otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass

from zorac_deploy import host_program
from zorac_deploy.connection import Connection
from zorac_deploy.errors import HostProgramUnusable, NotDeployed
from zorac_deploy.host_program import Restored, Verified
from zorac_deploy.inputs import Inputs


@dataclass(frozen=True)
class Look:
    """The result of comparing a host with its desired state.

    Attributes:
        verified: The host's answer; None if nothing is deployed or the host program cannot be used.
        other: Reasons to run the roles other than differences.
        drift: What differs on the host.
    """

    verified: Verified | None
    other: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons to change something."""
        return self.other + self.drift

    @property
    def intact(self) -> bool:
        """Whether the host was compared with its document, and nothing differs on it."""
        return self.verified is not None and not self.verified.unusable and not self.verified.differences

    @property
    def converged(self) -> bool:
        """Whether nothing has to change."""
        return not self.reasons


def look(
    connection: Connection, inputs: Inputs, with_document: bool = False, deep: bool = False, downgrade: bool = False
) -> Look:
    """Ask the host, in one call, to compare itself with `inputs` and, if those are its inputs, to ask its engine.

    Args:
        connection: The host.
        inputs: The inputs of the desired state.
        with_document: Include the document in the answer.
        deep: Read every byte of engine and model.
        downgrade: Accept a host that a newer version deployed.

    Raises:
        HostProgramUnusable: A newer version deployed the host.
    """
    options = [name for name, chosen in (("--document", with_document), ("--deep", deep)) if chosen]
    options += ["--inputs", inputs.digest] if inputs.digest else []
    try:
        verified = host_program.ask(connection, Verified, "verify", "--status", *options)
    except NotDeployed:
        return Look(None, ("nothing is deployed yet",))
    except HostProgramUnusable as fault:
        if fault.newer:
            raise
        return Look(None, ("the host program has another version or is damaged, and will be replaced",))
    if host_program.is_newer(verified.tool) and not downgrade:
        raise host_program.newer(connection.target.name, verified.tool)
    return Look(verified, tuple(_other(inputs, verified)), tuple(_drift(verified)))


def restore(
    connection: Connection, inputs: Inputs, comparison: Look, deep: bool = False
) -> tuple[tuple[str, ...], Look]:
    """Ask the host to restore what it can without a role, if nothing else has to change.

    Returns:
        What was restored, a line each, and the new comparison.
    """
    if comparison.other or not comparison.verified or not comparison.verified.differences:
        return (), comparison
    restored = host_program.ask(connection, Restored, "restore", *(["--deep"] if deep else [])).restored
    return restored, look(connection, inputs, deep=deep) if restored else comparison


def _other(inputs: Inputs, verified: Verified) -> Iterator[str]:
    if verified.unusable:
        yield verified.unusable
    elif not verified.inputs:
        yield "the last run did not finish, or recorded no digest of its inputs"
    elif inputs.digest and inputs.digest != verified.inputs:
        yield "the inputs changed since the last deployment"
    for variable in inputs.impure:
        yield f"{variable}: its value can change between runs"
    if verified.pending:
        yield f"generation {verified.pending.get('target')} is being activated"


def _drift(verified: Verified) -> Iterator[str]:
    for difference in verified.differences:
        yield str(difference)
    if verified.reply and verified.reply.failure:
        yield f"the engine gave no reply: {verified.reply.failure}"
