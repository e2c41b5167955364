"""All errors as one tree, with their exit codes, and all refusals with their meaning and cure.

::

    ZoracDeployError              1   an error without its own class
    ├── InventoryError            3   no inventory, not YAML, unknown host, no host named
    │   └── UnknownProfile        4   no inventory has the profile
    ├── HostUnreachable          10   the host does not answer
    │   ├── KeyRefused           11   the host refuses the SSH key
    │   ├── HostKeyChanged       12   the host key differs from the known one
    │   └── SudoRefused          13   the user cannot become root
    ├── HostBusy                 14   another run holds the host's lock
    ├── HostProgramUnusable      15   the host program has another version, is damaged, or is something else
    ├── Refused            REFUSALS   a check refused the run
    ├── DeploymentFailed         40   a task failed while it changed the host
    ├── SmokeFailed              41   a check of the endpoint failed
    ├── NotDeployed              42   nothing is deployed on the host
    ├── EndpointFailed           43   the endpoint refused or dropped a request
    ├── SandboxError             50   a sandbox host could not be created, reached or removed
    └── Interrupted             130   Ctrl-C

Click exits with 2 for an invalid command line. A run that SIGHUP or SIGTERM ended exits with 129 or 143. A message is
written once, where the error is found: what happened, with the value; why, or what is needed; what to type.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple


class ZoracDeployError(Exception):
    """Any other error; the message says what happened."""

    exit_code: ClassVar[int] = 1


class InventoryError(ZoracDeployError):
    """The inventory cannot be read, or no host is named."""

    exit_code = 3


class UnknownProfile(InventoryError):
    """The profile is not a group under gpu_servers."""

    exit_code = 4


class HostUnreachable(ZoracDeployError):
    """The host cannot be reached over SSH."""

    exit_code = 10


class KeyRefused(HostUnreachable):
    """The host answers, but refuses the SSH key."""

    exit_code = 11


class HostKeyChanged(HostUnreachable):
    """The host key differs from the known one."""

    exit_code = 12


class SudoRefused(HostUnreachable):
    """The user on the host cannot become root: sudo needs a password, or the password is wrong."""

    exit_code = 13


class HostBusy(ZoracDeployError):
    """Another run of zorac-deploy holds the host's lock."""

    exit_code = 14


class HostProgramUnusable(ZoracDeployError):
    """The host program gave an answer that this version of zorac-deploy does not expect.

    Attributes:
        newer: Whether it has a later version: then upgrade zorac-deploy on this machine.
    """

    exit_code = 15

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class Kind(NamedTuple):
    """A kind of refusal. docs/reference/exit-codes.md is generated from it.

    Attributes:
        exit_code: The process exit code.
        meaning: What happened.
        cure: What to do.
    """

    exit_code: int
    meaning: str
    cure: str


REFUSALS: dict[str, Kind] = {
    "unsupported-system": Kind(
        20,
        "The distribution, its version or the CPU architecture is not supported.",
        "Use Debian 12 or 13, or Ubuntu 24.04, on x86-64.",
    ),
    "no-systemd": Kind(
        21,
        "The host does not run systemd.",
        "Use a host that boots with systemd.",
    ),
    "engine-unknown": Kind(
        22,
        "No lock exists for the engine.",
        "Use an engine that the message lists.",
    ),
    "engine-no-space": Kind(
        23,
        "The disk has no space for the engine.",
        "Free some space, or set `engine_root`.",
    ),
    "engine-no-python": Kind(
        24,
        "The host's Python version is not supported by the engine's lock.",
        "Use another engine, or another distribution.",
    ),
    "model-missing": Kind(
        25,
        "The model, its file or its revision does not exist.",
        "Check the name, and the token for a private model.",
    ),
    "model-incomplete": Kind(
        26,
        "The model lacks a file, or several models are possible.",
        "Download the rest, or name one file.",
    ),
    "model-damaged": Kind(
        27,
        "A file of the model is damaged, or changed on the way.",
        "Download the file or the model again.",
    ),
    "model-no-space": Kind(
        28,
        "The disk has no space for the model.",
        "Free some space, or set `model_weights_root`.",
    ),
    "port-taken": Kind(
        29,
        "Another program uses the port.",
        "Stop the program, or set `vllm_port`.",
    ),
    "apt-locked": Kind(
        30,
        "Another package manager runs on the host.",
        "Wait until it ends, then re-run the command.",
    ),
    "power-limit-invalid": Kind(
        31,
        "A power limit or a clock is invalid for the GPU.",
        "Use a value that `zorac-deploy gpus` shows.",
    ),
    "rolled-back": Kind(
        32,
        "The new generation failed, and the host rolled back.",
        "Read the reason and the journal, correct the settings.",
    ),
    "generation-unknown": Kind(
        33,
        "The generation does not exist, or none is good.",
        "Choose one from `zorac-deploy generations`.",
    ),
    "disk-full": Kind(
        34,
        "The disk is full.",
        "Free some space, then re-run the command.",
    ),
    "model-gated": Kind(
        35,
        "The hub requires a token, or accepted terms.",
        "Accept the terms on the model's page, and set `HF_TOKEN`.",
    ),
    "model-unreachable": Kind(
        36,
        "The hub or the web server cannot be reached.",
        "Check the network and the proxy, then re-run the command.",
    ),
    "model-unknown": Kind(
        37,
        "The planner cannot plan the model's architecture.",
        "Set `vllm_max_model_len` to a number.",
    ),
    "model-does-not-fit": Kind(
        38,
        "The model does not fit into the memory.",
        "Use a shorter context, a quantized variant, or more memory.",
    ),
    "settings-invalid": Kind(
        39,
        "A setting or an option is invalid.",
        "Correct the value that the message names.",
    ),
    "gpu-missing": Kind(
        60,
        "The host has no NVIDIA GPU.",
        "Check the card and the passthrough, or use the profile `cpu`.",
    ),
    "gpu-unknown": Kind(
        61,
        "The compatibility lock has no GPU of the host, and no driver works.",
        "Install the driver by hand.",
    ),
    "gpu-unknown-engine": Kind(
        62,
        "The compatibility lock does not list the engine.",
        "Use an engine that the message lists.",
    ),
    "gpu-too-old": Kind(
        63,
        "The engine does not support the GPU's compute capability.",
        "Use another GPU, or the profile `cpu`.",
    ),
    "kv-dtype-unsupported": Kind(
        64,
        "The GPU does not support an fp8 KV cache.",
        "Set `vllm_kv_cache_dtype: auto`, and halve `vllm_max_model_len`.",
    ),
    "driver-missing": Kind(
        65,
        "No NVIDIA driver is loaded.",
        "Install a driver.",
    ),
    "driver-too-old": Kind(
        66,
        "The driver is older than the engine needs.",
        "Upgrade the driver, or remove it and re-run `up`.",
    ),
    "driver-foreign": Kind(
        67,
        "A driver that no package owns does not work.",
        "Remove it, reboot, re-run the command.",
    ),
    "apt-broken": Kind(
        68,
        "Packages are half installed.",
        "`sudo dpkg --configure -a; sudo apt-get --fix-broken install`.",
    ),
    "boot-full": Kind(
        69,
        "`/boot` has no space for an initramfs.",
        "`sudo apt-get autoremove`.",
    ),
    "secure-boot": Kind(
        70,
        "Secure Boot is on, and the firmware has no key for the modules.",
        "Enroll a key, use signed modules, or disable Secure Boot.",
    ),
    "reboot-needed": Kind(
        71,
        "The driver is installed, and needs a reboot to load.",
        "Reboot the host, then re-run the command.",
    ),
    "driver-broken": Kind(
        72,
        "The packages of a driver that zorac-deploy did not install do not work.",
        "Reboot; if that does not help, remove the packages.",
    ),
    "driver-not-installed": Kind(
        73,
        "The driver's installation failed; the previous packages are restored.",
        "Read the reason; use another version or kernel.",
    ),
    "driver-dead": Kind(
        74,
        "The driver is installed, the host was rebooted, and the driver does not work.",
        "Check the card's power, or try another branch.",
    ),
    "reboot-failed": Kind(
        75,
        "The host did not come back after a reboot.",
        "Check its screen and its address, then re-run the command.",
    ),
    "secure-boot-enrolment": Kind(
        76,
        "The key of the modules has to be enrolled at the host's screen.",
        "Follow the message, then re-run the command.",
    ),
    "gpu-not-found": Kind(
        77,
        "The named GPU does not exist.",
        "Use a UUID or an address from `zorac-deploy gpus`.",
    ),
    "gpu-memory-held": Kind(
        78,
        "Other processes use too much GPU memory.",
        "Stop them, or set a smaller `vllm_gpu_memory_utilization`.",
    ),
    "desktop-in-use": Kind(
        79,
        "A user is logged in at a desktop that the profile stops.",
        "Log out, or set `headless_host_sessions_may_end: true`.",
    ),
    "model-unsafe": Kind(
        80,
        "The model has pickles, or files outside its directory.",
        "Use a model with safetensors files.",
    ),
    "format-unsupported": Kind(
        81,
        "The engine or the GPU does not support the model's format.",
        "Use another checkpoint of the model.",
    ),
    "recipe-invalid": Kind(
        82,
        "The quantization recipe is invalid, or does not fit the model.",
        "Correct the recipe as the message says.",
    ),
    "bundle-damaged": Kind(
        83,
        "The bundle is incomplete or damaged.",
        "Copy the bundle again.",
    ),
    "model-in-use": Kind(
        84,
        "A generation uses the model.",
        "Collect old generations, or add `--force`.",
    ),
    "setting-slower": Kind(
        85,
        "A setting forces a slower kernel.",
        "Remove the setting.",
    ),
    "quantize-failed": Kind(
        86,
        "llmcompressor failed.",
        "Read the log; use fewer or shorter samples.",
    ),
    "bundle-unfit": Kind(
        87,
        "The bundle is for another distribution, engine or Python version.",
        "Create a bundle for the host.",
    ),
    "lock-unsafe": Kind(
        90,
        "The lock on the host is not owned by root, or is a link.",
        "`sudo rm -r /run/zorac-deploy` on the host.",
    ),
    "unit-foreign": Kind(
        92,
        "zorac-deploy did not create the engine's unit.",
        "Move the unit away, or use `up --replace-unit`.",
    ),
    "user-foreign": Kind(
        93,
        "zorac-deploy did not create the engine's user.",
        "Set `engine_user` to an unused name.",
    ),
    "disk-no-space": Kind(
        94,
        "A file system has no space for all that goes there.",
        "Free some space, or set another directory.",
    ),
    "log-unreadable": Kind(
        95,
        "The log or support bundle cannot be read, or is not text.",
        "Use a log in plain text, or a bundle of `support-bundle`.",
    ),
    "rule-invalid": Kind(
        96,
        "A rule of your own for the doctor is not valid.",
        "Correct the rule that the message names, or move it away.",
    ),
    "bundle-unwritable": Kind(
        97,
        "The support bundle cannot be written.",
        "Use another file with `--output`.",
    ),
    "drift-left": Kind(
        99,
        "The host still differs after the deployment.",
        "Re-run the command; stop the program that changes the host.",
    ),
}


class Refused(ZoracDeployError):
    """A check refused the run. `REFUSALS` has the meaning and the cure of each refusal.

    Attributes:
        refusal: The id of the refusal, one of `REFUSALS`.
    """

    exit_code = 39

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class DeploymentFailed(ZoracDeployError):
    """A task failed while it changed the host."""

    exit_code = 40


class SmokeFailed(ZoracDeployError):
    """The endpoint answers, but a smoke check failed.

    Attributes:
        failed: The names of the checks that failed.
    """

    exit_code = 41

    def __init__(self, message: str, failed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class NotDeployed(ZoracDeployError):
    """Nothing is deployed on the host."""

    exit_code = 42


class EndpointFailed(ZoracDeployError):
    """The endpoint refused a request, or the connection broke."""

    exit_code = 43


class SandboxError(ZoracDeployError):
    """A sandbox host could not be created, reached or removed."""

    exit_code = 50


class Interrupted(ZoracDeployError):
    """Ctrl-C. The host finishes an activation in progress."""

    exit_code = 130


def refused(answer: object) -> Refused | None:
    """The refusal in `answer`, a task's result or the output of a program; None if it has none."""
    if isinstance(answer, str):
        with contextlib.suppress(ValueError, RecursionError):
            return refused(json.loads(answer))
    refusal = answer.get("refusal") if isinstance(answer, Mapping) else None
    if isinstance(refusal, Mapping) and refusal.get("id") in REFUSALS:
        return Refused(str(refusal.get("message")), str(refusal["id"]))
    return None


def exit_code_of(error: ZoracDeployError) -> int:
    """The process exit code for `error`."""
    if isinstance(error, Refused):
        return REFUSALS[error.refusal].exit_code
    return error.exit_code
