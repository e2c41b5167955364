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
    words = parser.add_subparsers(required=True, metavar="COMMAND")

    word = words.add_parser("version", help="print the version of this program and of its protocol")
    word.set_defaults(do=lambda _: print(json.dumps({"version": __version__, "protocol": PROTOCOL})))

    word = words.add_parser("status", help="print what runs, the activation in progress, and every generation")
    word.set_defaults(do=_status)

    word = words.add_parser("activate", help="activate a generation, verify it, and wait for the result")
    word.add_argument("number", type=int)
    word.add_argument("--by", required=True, help="who requests the activation")
    word.add_argument(
        "--key", type=Path, help="file with a new API key, installed with the generation; the file is renamed"
    )
    word.add_argument("--restart", action="store_true", help="restart the engine even if this generation runs")
    word.add_argument("--check", action="store_true", help="only report whether anything would change")
    word.set_defaults(do=_activate)

    word = words.add_parser("keep", help="store a copy of a unit that zorac-deploy did not create")
    word.add_argument("unit")
    word.set_defaults(do=_keep)

    word = words.add_parser("install", help="install this program and its units")
    for name in ("idle", "stall", "answer"):
        word.add_argument(f"--{name}", type=float, required=True, help="limit of the watchdog in seconds")
    word.add_argument("--check", action="store_true", help="only report what would change")
    word.set_defaults(do=_install)

    word = words.add_parser("foreign", help="list the files of a unit that zorac-deploy did not create")
    word.add_argument("unit")
    word.add_argument("--require-none", action="store_true", help="refuse a unit that has such files")
    word.set_defaults(do=_foreign)

    word = words.add_parser("restore-units", help="restore the units that were replaced")
    word.set_defaults(do=_restore_units)

    word = words.add_parser("port", help="require that an engine can listen")
    word.add_argument("host")
    word.add_argument("port", type=int)
    word.add_argument("unit", nargs="*", help="unit of an engine: its ports count as free")
    word.set_defaults(do=_port)

    word = words.add_parser("look", help="print this host's space, accounts and packages")
    word.add_argument(
        "--disk", type=Path, action="append", default=[], help="path to report: whether it exists, and the free bytes"
    )
    word.add_argument("--used", type=Path, help="directory to report: the bytes it uses")
    word.add_argument(
        "--account", default="", help="user name to report: its owner, and whether zorac-deploy created it"
    )
    word.add_argument("--engines", type=Path, default=Path("/"), help="directory of the engines")
    word.add_argument("--key", type=Path, help="API key file to report: its digest, and whether only root can read it")
    word.add_argument("--packages", action="store_true", help="report the installed packages")
    word.add_argument("--versions", action="store_true", help="report the packages with versions and holds")
    word.set_defaults(do=_look)

    word = words.add_parser("space", help="require enough free space on each file system")
    word.add_argument("needs", type=json.loads)
    word.set_defaults(do=_space)

    word = words.add_parser("gpus", help="print the NVIDIA GPUs and the driver")
    word.set_defaults(do=_gpus)

    word = words.add_parser("examine", help="run the probes of the whole host, for the doctor")
    word.set_defaults(do=_examine)

    word = words.add_parser("manifest", help="print the manifest of a model")
    word.add_argument("model", type=Path)
    word.add_argument("--pickle", action="store_true")
    word.set_defaults(do=_manifest)

    word = words.add_parser("wait", help="wait until no activation is in progress")
    word.set_defaults(do=_wait)

    word = words.add_parser("run", help="run the recorded activation; systemd calls this")
    word.set_defaults(do=_run)

    word = words.add_parser("watch", help="check the engine once; a timer calls this")
    word.add_argument("--idle-seconds", type=float, required=True)
    word.add_argument("--stall-seconds", type=float, required=True)
    word.add_argument("--answer-seconds", type=float, required=True)
    word.set_defaults(do=_watch)

    word = words.add_parser("verify", help="compare the host with its recorded desired state")
    word.add_argument("--deep", action="store_true", help="also compare every byte of the engine and the model")
    word.add_argument("--status", action="store_true", help="also print the status")
    word.add_argument("--inputs", default="", help="if they are the recorded ones, also request a real reply")
    word.add_argument("--document", action="store_true", help="also print the desired state")
    word.set_defaults(do=_verify)

    word = words.add_parser("restore", help="restore modes and owners, and move added files and drop-ins away")
    word.add_argument("--check", action="store_true", help="only report what would be restored")
    word.add_argument("--deep", action="store_true", help="also compare every byte of the engine and the model")
    word.add_argument("--begin", action="store_true", help="announce more changes, which are recorded at the end")
    word.add_argument("--intact", action="store_true", help="do not compare: a moment ago, nothing differed")
    word.set_defaults(do=_restore)

    word = words.add_parser("apply", help="record the document on standard input as the desired state")
    word.add_argument("--check", action="store_true", help="only report the differences")
    word.set_defaults(do=_apply)

    word = words.add_parser("collect", help="remove generations that are no longer needed")
    word.add_argument(
        "--keep", type=int, required=True, help="number of good generations to keep besides the current one"
    )
    word.add_argument("--check", action="store_true", help="only report what would be removed")
    word.set_defaults(do=_collect)
    return parser


def _status(_: argparse.Namespace) -> None:
    from zorac_host import status

    print(json.dumps(status.read()))


def _activate(given: argparse.Namespace) -> None:
    from zorac_host import activation, install

    told = activation.activate(given.number, given.by, given.key, given.restart, given.check)
    if told.get("state") == "proved":
        told["changed"] |= install.watched(given.check)
    print(json.dumps(told))


def _keep(given: argparse.Namespace) -> None:
    from zorac_host import foreign

    print(json.dumps({"changed": foreign.keep(given.unit)}))


def _foreign(given: argparse.Namespace) -> None:
    from zorac_host import foreign

    found = foreign.look(given.unit)
    if found and given.require_none:
        raise foreign.refusal(given.unit, found)
    print(json.dumps({"found": list(map(str, found))}))


def _restore_units(_: argparse.Namespace) -> None:
    from zorac_host import foreign

    print(json.dumps([unit for unit in foreign.stored() if foreign.restore(unit)]))


def _port(given: argparse.Namespace) -> None:
    from zorac_host import port, store

    current = store.current()  # its engine is stopped first
    port.require(given.host, given.port, [*given.unit, *([current.unit] if current else [])])
    print(json.dumps({}))


def _look(given: argparse.Namespace) -> None:
    from zorac_host import look

    told: dict[str, object] = {"python": look.python(), "disk": {str(path): look.disk(path) for path in given.disk}}
    told |= {"used": look.used(given.used)} if given.used else {}
    told |= {"account": look.account(given.account, given.engines)} if given.account else {}
    told |= {"key": look.api_key(given.key)} if given.key else {}
    told |= {"packages": look.packages()} if given.packages else {}
    told |= look.versions() if given.versions else {}
    print(json.dumps(told))


def _space(given: argparse.Namespace) -> None:
    from zorac_host import look

    look.require_space(given.needs)
    print(json.dumps({}))


def _gpus(_: argparse.Namespace) -> None:
    from zorac_host import nvidia_probe

    print(json.dumps(nvidia_probe.probe(Path("/"))))


def _examine(_: argparse.Namespace) -> None:
    from zorac_host import examine

    print(json.dumps(examine.look()))


def _manifest(given: argparse.Namespace) -> None:
    from zorac_host import model_manifest

    print(json.dumps(model_manifest.manifest(given.model, pickle=given.pickle)))


def _wait(_: argparse.Namespace) -> None:
    from zorac_host import activation

    activation.wait()


def _run(_: argparse.Namespace) -> None:
    from zorac_host import activation

    sys.exit(0 if activation.run() else _NOT_PROVED)


def _watch(given: argparse.Namespace) -> None:
    from zorac_host import watchdog

    print(watchdog.look(given.idle_seconds, given.stall_seconds, given.answer_seconds))


def _verify(given: argparse.Namespace) -> None:
    from zorac_host import status, verify

    told = verify.look(given.deep, given.inputs, given.document)
    print(json.dumps(told | ({"status": status.read()} if given.status else {})))


def _restore(given: argparse.Namespace) -> None:
    from zorac_host import activation, restore

    if not given.check:
        activation.wait()
    print(json.dumps(restore.restore(given.check, given.begin, given.deep, given.intact)))


def _apply(given: argparse.Namespace) -> None:
    from zorac_host import verify

    document = verify.parsed(sys.stdin.read(), "the document on standard input")
    print(json.dumps(verify.apply(document, given.check)))


def _install(given: argparse.Namespace) -> None:
    from zorac_host import install

    seconds = {"idle": given.idle, "stall": given.stall, "answer": given.answer}
    print(json.dumps(install.install(seconds, given.check)))


def _collect(given: argparse.Namespace) -> None:
    from zorac_host import activation, store

    activation.wait()
    print(json.dumps(store.collect(given.keep, given.check)))
