"""The commands of ``zorac-host``: each prints one line of JSON.

A refusal is an answer too, with exit code 4; any other error is a message on standard error.

A command first imports what it needs: Python compiles this program at every start, and the file may be replaced while
the program runs.
"""

import argparse
import errno
import json
import sys
from pathlib import Path
from typing import NoReturn

from zorac_host import PROTOCOL, Fault, __version__
from zorac_host.refusal import Refusal

_NOT_PROVED = 3
_REFUSED = 4


def main() -> None:
    """Parse the command line and run the command."""
    arguments = _parser().parse_args()
    try:
        arguments.do(arguments)
    except Refusal as refusal:
        _refuse(refusal)
    except Fault as fault:
        sys.exit(str(fault))
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "The previous files are intact. Free some space, then re-run the command."
            _refuse(Refusal(f"{fault}. {cure}", "disk-full"))
        sys.exit(str(fault))


def _refuse(refusal: Refusal) -> NoReturn:
    print(json.dumps(refusal.answer()))
    print(refusal, file=sys.stderr)
    sys.exit(_REFUSED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zorac-host", description="Manage the generations of this host.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("version", help="print the version of this program and of its protocol")
    command.set_defaults(do=lambda _: print(json.dumps({"version": __version__, "protocol": PROTOCOL})))

    command = commands.add_parser("status", help="print what runs, the activation in progress, and every generation")
    command.set_defaults(do=_status)

    command = commands.add_parser("activate", help="activate a generation, verify it, and wait for the result")
    command.add_argument("number", type=int)
    command.add_argument("--by", required=True, help="who requests the activation")
    command.add_argument(
        "--key", type=Path, help="file with a new API key, installed with the generation; the file is renamed"
    )
    command.add_argument("--restart", action="store_true", help="restart the engine even if this generation runs")
    command.add_argument("--check", action="store_true", help="only report whether anything would change")
    command.set_defaults(do=_activate)

    command = commands.add_parser("keep", help="store a copy of a unit that zorac-deploy did not create")
    command.add_argument("unit")
    command.set_defaults(do=_keep)

    command = commands.add_parser("install", help="install this program and its units")
    for name in ("idle", "stall", "answer"):
        command.add_argument(f"--{name}", type=float, required=True, help="limit of the watchdog in seconds")
    command.add_argument("--check", action="store_true", help="only report what would change")
    command.set_defaults(do=_install)

    command = commands.add_parser("foreign", help="list the files of a unit that zorac-deploy did not create")
    command.add_argument("unit")
    command.add_argument("--require-none", action="store_true", help="refuse a unit that has such files")
    command.add_argument("--listen", metavar="ADDRESS", help="require that its engine can listen on it, at --port")
    command.add_argument("--port", type=int, default=0, help="port for --listen")
    command.set_defaults(do=_foreign)

    command = commands.add_parser("restore-units", help="restore the units that were replaced")
    command.set_defaults(do=_restore_units)

    command = commands.add_parser("look", help="print this host's space, accounts and packages")
    command.add_argument(
        "--disk", type=Path, action="append", default=[], help="path to report: whether it exists, and the free bytes"
    )
    command.add_argument("--used", type=Path, help="directory to report: the bytes it uses")
    command.add_argument(
        "--account", default="", help="user name to report: its owner, and whether zorac-deploy created it"
    )
    command.add_argument("--engines", type=Path, default=Path("/"), help="directory of the engines")
    command.add_argument(
        "--key", type=Path, help="API key file to report: its digest, and whether only root can read it"
    )
    command.add_argument("--packages", action="store_true", help="report the installed packages")
    command.add_argument("--versions", action="store_true", help="report the packages with versions and holds")
    command.add_argument("--locks", action="store_true", help="report the processes with apt's locks")
    command.set_defaults(do=_look)

    command = commands.add_parser("space", help="require enough free space on each file system")
    command.add_argument("needs", type=json.loads)
    command.set_defaults(do=_space)

    command = commands.add_parser("gpus", help="print the NVIDIA GPUs and the driver")
    command.set_defaults(do=_gpus)

    command = commands.add_parser("examine", help="run the probes of the whole host, for the doctor")
    command.set_defaults(do=_examine)

    command = commands.add_parser("manifest", help="print the manifest of a model")
    command.add_argument("model", type=Path)
    command.add_argument("--pickle", action="store_true")
    command.set_defaults(do=_manifest)

    command = commands.add_parser("wait", help="wait until no activation is in progress")
    command.set_defaults(do=_wait)

    command = commands.add_parser("run", help="run the recorded activation; systemd calls this")
    command.set_defaults(do=_run)

    command = commands.add_parser("watch", help="check the engine once; a timer calls this")
    command.add_argument("--idle-seconds", type=float, required=True)
    command.add_argument("--stall-seconds", type=float, required=True)
    command.add_argument("--answer-seconds", type=float, required=True)
    command.set_defaults(do=_watch)

    command = commands.add_parser("verify", help="compare the host with its recorded desired state")
    command.add_argument("--deep", action="store_true", help="also compare every byte of the engine and the model")
    command.add_argument("--status", action="store_true", help="also print the status")
    command.add_argument("--inputs", default="", help="if they are the recorded ones, also request a real reply")
    command.add_argument("--document", action="store_true", help="also print the desired state")
    command.set_defaults(do=_verify)

    command = commands.add_parser("restore", help="restore modes and owners, and move added files and drop-ins away")
    command.add_argument("--check", action="store_true", help="only report what would be restored")
    command.add_argument("--deep", action="store_true", help="also compare every byte of the engine and the model")
    command.add_argument("--begin", action="store_true", help="announce more changes, which are recorded at the end")
    command.add_argument("--intact", action="store_true", help="do not compare: a moment ago, nothing differed")
    command.set_defaults(do=_restore)

    command = commands.add_parser("apply", help="record the document on standard input as the desired state")
    command.add_argument("--check", action="store_true", help="only report the differences")
    command.set_defaults(do=_apply)

    command = commands.add_parser("collect", help="remove generations that are no longer needed")
    command.add_argument(
        "--keep", type=int, required=True, help="number of good generations to keep besides the current one"
    )
    command.add_argument("--check", action="store_true", help="only report what would be removed")
    command.set_defaults(do=_collect)
    return parser


def _status(_: argparse.Namespace) -> None:
    from zorac_host import status

    print(json.dumps(status.read()))


def _activate(arguments: argparse.Namespace) -> None:
    from zorac_host import activation, install

    result = activation.activate(arguments.number, arguments.by, arguments.key, arguments.restart, arguments.check)
    if result.get("state") == "proved":
        result["changed"] |= install.watched(arguments.check)
    print(json.dumps(result))


def _keep(arguments: argparse.Namespace) -> None:
    from zorac_host import foreign

    print(json.dumps({"changed": foreign.keep(arguments.unit)}))


def _foreign(arguments: argparse.Namespace) -> None:
    from zorac_host import foreign, port, store

    files = foreign.look(arguments.unit)
    if files and arguments.require_none:
        raise foreign.refusal(arguments.unit, files)
    if arguments.listen:
        current = store.current()  # its engine is stopped first, like a unit that is replaced: their ports are free
        port.require(arguments.listen, arguments.port, [arguments.unit, *([current.unit] if current else [])])
    print(json.dumps({"found": list(map(str, files))}))


def _restore_units(_: argparse.Namespace) -> None:
    from zorac_host import foreign

    print(json.dumps([unit for unit in foreign.stored() if foreign.restore(unit)]))


def _look(arguments: argparse.Namespace) -> None:
    from zorac_host import look

    answer: dict[str, object] = {
        "python": look.python(),
        "disk": {str(path): look.disk(path) for path in arguments.disk},
    }
    answer |= {"used": look.used(arguments.used)} if arguments.used else {}
    answer |= {"account": look.account(arguments.account, arguments.engines)} if arguments.account else {}
    answer |= {"key": look.api_key(arguments.key)} if arguments.key else {}
    answer |= {"packages": look.packages()} if arguments.packages else {}
    answer |= look.versions() if arguments.versions else {}
    answer |= {"locks": look.apt_locks()} if arguments.locks else {}
    print(json.dumps(answer))


def _space(arguments: argparse.Namespace) -> None:
    from zorac_host import look

    look.require_space(arguments.needs)
    print(json.dumps({}))


def _gpus(_: argparse.Namespace) -> None:
    from zorac_host import nvidia_probe

    print(json.dumps(nvidia_probe.probe(Path("/"))))


def _examine(_: argparse.Namespace) -> None:
    from zorac_host import examine

    print(json.dumps(examine.look()))


def _manifest(arguments: argparse.Namespace) -> None:
    from zorac_host import model_manifest

    print(json.dumps(model_manifest.manifest(arguments.model, pickle=arguments.pickle)))


def _wait(_: argparse.Namespace) -> None:
    from zorac_host import activation

    activation.wait()


def _run(_: argparse.Namespace) -> None:
    from zorac_host import activation

    sys.exit(0 if activation.run() else _NOT_PROVED)


def _watch(arguments: argparse.Namespace) -> None:
    from zorac_host import watchdog

    print(watchdog.look(arguments.idle_seconds, arguments.stall_seconds, arguments.answer_seconds))


def _verify(arguments: argparse.Namespace) -> None:
    from zorac_host import status, verify

    answer = verify.look(arguments.deep, arguments.inputs, arguments.document)
    print(json.dumps(answer | ({"status": status.read()} if arguments.status else {})))


def _restore(arguments: argparse.Namespace) -> None:
    from zorac_host import activation, restore

    if not arguments.check:
        activation.wait()
    print(json.dumps(restore.restore(arguments.check, arguments.begin, arguments.deep, arguments.intact)))


def _apply(arguments: argparse.Namespace) -> None:
    from zorac_host import verify

    document = verify.parsed(sys.stdin.read(), "the document on standard input")
    print(json.dumps(verify.apply(document, arguments.check)))


def _install(arguments: argparse.Namespace) -> None:
    from zorac_host import install

    seconds = {"idle": arguments.idle, "stall": arguments.stall, "answer": arguments.answer}
    print(json.dumps(install.install(seconds, arguments.check)))


def _collect(arguments: argparse.Namespace) -> None:
    from zorac_host import activation, store

    activation.wait()
    print(json.dumps(store.collect(arguments.keep, arguments.check)))
