"""Whether a host already is what is asked for, so that no role has to run, and why not if it is not."""

from collections.abc import Iterator
from dataclasses import dataclass

from zorac_deploy import host_program
from zorac_deploy.connection import Connection
from zorac_deploy.errors import HostProgramUnusable, NotDeployed
from zorac_deploy.host_program import Restored, Verified
from zorac_deploy.inputs import Inputs


@dataclass(frozen=True)
class Look:
    """What a host answered when it was asked whether it is what is asked for.

    Attributes:
        verified: The answer; None where nothing is deployed, or the host program cannot be used.
        other: Why the roles have to run, whatever the host looks like.
        drift: What on the host is not as it was deployed.
    """

    verified: Verified | None
    other: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why something has to change."""
        return self.other + self.drift

    @property
    def converged(self) -> bool:
        """Whether nothing has to change."""
        return not self.reasons


def look(connection: Connection, asked: Inputs, whole: bool = False, deep: bool = False) -> Look:
    """Ask the connection's host, in one call, whether it is what `asked` asks for, and for a real reply.

    Args:
        connection: The host.
        asked: What is asked for.
        whole: Have the document in the answer.
        deep: Have the host read every byte of engine and model.

    Raises:
        HostProgramUnusable: The host was deployed by a newer version.
    """
    options = [name for name, wanted in (("--document", whole), ("--deep", deep)) if wanted]
    try:
        verified = host_program.ask(connection, Verified, "verify", "--reply", *options)
    except NotDeployed:
        return Look(None, ("nothing is deployed yet",))
    except HostProgramUnusable as fault:
        if fault.newer:
            raise
        return Look(None, ("the host program has another version or is damaged, and will be replaced",))
    return Look(verified, tuple(_other(asked, verified)), tuple(_drift(verified)))


def restore(connection: Connection, asked: Inputs, found: Look, deep: bool = False) -> tuple[tuple[str, ...], Look]:
    """Have the host put back what it can without a role, where nothing else has to change.

    Returns:
        What was put back, a line each, and what the host looks like now.
    """
    if found.other or not found.verified or not found.verified.differences:
        return (), found
    restored = host_program.ask(connection, Restored, "restore", *(["--deep"] if deep else [])).restored
    return restored, look(connection, asked, deep=deep) if restored else found


def _other(asked: Inputs, verified: Verified) -> Iterator[str]:
    if verified.unusable:
        yield verified.unusable
    elif not verified.inputs:
        yield "the last run did not finish, or recorded no digest of its inputs"
    elif asked.digest and asked.digest != verified.inputs:
        yield "the inputs changed since the last deployment"
    for variable in asked.impure:
        yield f"{variable}: its value can change between runs"
    if verified.pending:
        yield f"generation {verified.pending.get('target')} is being activated"


def _drift(verified: Verified) -> Iterator[str]:
    for difference in verified.differences:
        yield str(difference)
    if verified.reply and verified.reply.failure:
        yield f"the engine gave no reply: {verified.reply.failure}"
