"""The words of ``zorac-host``: each prints one line of JSON.

A refusal is an answer too, with exit code 4; any other fault is a message on standard error.

A word imports what it needs, and as the first thing that it does: Python compiles this program at every start, and the
file may be replaced while the program runs.
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
    """Do what the command line says."""
    arguments = _parser().parse_args()
    try:
        arguments.do(arguments)
    except Refusal as refusal:
        _refuse(refusal)
    except Fault as fault:
        sys.exit(str(fault))
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "What was there before is still there. Free some space, and run the same command again."
            _refuse(Refusal(f"{fault}. {cure}", "disk-full"))
        sys.exit(str(fault))


def _refuse(refusal: Refusal) -> NoReturn:
    print(json.dumps(refusal.answer()))
    print(refusal, file=sys.stderr)
    sys.exit(_REFUSED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zorac-host", description="Keep this host's generations.")
    words = parser.add_subparsers(required=True, metavar="WORD")

    word = words.add_parser("version", help="the version of this program, and of what it answers")
    word.set_defaults(do=lambda _: print(json.dumps({"version": __version__, "protocol": PROTOCOL})))

    word = words.add_parser("status", help="what runs, what is under way, and every generation")
    word.set_defaults(do=_status)

    word = words.add_parser("activate", help="have a generation run, proved, and wait for it")
    word.add_argument("number", type=int)
    word.add_argument("--by", required=True, help="who wants it, for those who ask meanwhile")
    word.add_argument("--key", type=Path, help="a file with a new API key, put in force with it; the file is renamed")
    word.add_argument("--restart", action="store_true", help="start the engine anew, even if it is what runs")
    word.add_argument("--check", action="store_true", help="only say whether there is anything to do")
    word.set_defaults(do=_activate)

    word = words.add_parser("keep", help="store a copy of a unit that is not ours, before one of its name is activated")
    word.add_argument("unit")
    word.set_defaults(do=_keep)

    word = words.add_parser("install", help="install this program and its units")
    for name in ("idle", "stall", "answer"):
        word.add_argument(f"--{name}", type=float, required=True, help="seconds, a limit of the watchdog")
    word.add_argument("--check", action="store_true", help="only say what would change")
    word.set_defaults(do=_install)

    word = words.add_parser("foreign", help="which files define a unit and are not ours")
    word.add_argument("unit")
    word.add_argument("--require-none", action="store_true", help="refuse a unit that has any")
    word.set_defaults(do=_foreign)

    word = words.add_parser("restore-units", help="restore the units that were replaced")
    word.set_defaults(do=_restore_units)

    word = words.add_parser("port", help="require that an engine can listen")
    word.add_argument("host")
    word.add_argument("port", type=int)
    word.add_argument("unit", nargs="*", help="an engine's unit: what it holds will be free")
    word.set_defaults(do=_port)

    word = words.add_parser("look", help="what this host has: space, accounts, packages")
    word.add_argument("--disk", type=Path, action="append", default=[], help="a path: if it exists, the free bytes")
    word.add_argument("--used", type=Path, help="a folder: the bytes that it holds")
    word.add_argument("--account", default="", help="a user's name: who has it, and what zorac-deploy made")
    word.add_argument("--engines", type=Path, default=Path("/"), help="the folder of the engines")
    word.add_argument("--key", type=Path, help="the file of the API key: its digest, and whether only root can read it")
    word.add_argument("--packages", action="store_true", help="the packages that are installed")
    word.add_argument("--versions", action="store_true", help="the same with versions, and which are held")
    word.set_defaults(do=_look)

    word = words.add_parser("space", help="require that each file system has room for all that goes there")
    word.add_argument("needs", type=json.loads)
    word.set_defaults(do=_space)

    word = words.add_parser("gpus", help="the NVIDIA GPUs and the driver")
    word.set_defaults(do=_gpus)

    word = words.add_parser("manifest", help="what a model consists of")
    word.add_argument("model", type=Path)
    word.add_argument("--pickle", action="store_true")
    word.set_defaults(do=_manifest)

    word = words.add_parser("wait", help="wait until no activation is under way")
    word.set_defaults(do=_wait)

    word = words.add_parser("run", help="do the activation on record; systemd calls this")
    word.set_defaults(do=_run)

    word = words.add_parser("watch", help="look once whether the engine lives; a timer calls this")
    word.add_argument("--idle-seconds", type=float, required=True)
    word.add_argument("--stall-seconds", type=float, required=True)
    word.add_argument("--answer-seconds", type=float, required=True)
    word.set_defaults(do=_watch)

    word = words.add_parser("verify", help="compare the host with the document that was applied last")
    word.add_argument("--deep", action="store_true", help="also read every byte of engine and model")
    word.add_argument("--reply", action="store_true", help="also ask the engine for a real reply, and say what runs")
    word.add_argument("--document", action="store_true", help="answer with the document, too")
    word.set_defaults(do=_verify)

    word = words.add_parser("restore", help="put back modes, owners, added files and drop-ins")
    word.add_argument("--check", action="store_true", help="only say what would be put back")
    word.add_argument("--deep", action="store_true", help="also read every byte of engine and model")
    word.add_argument("--begin", action="store_true", help="more changes follow, and are recorded at the end")
    word.set_defaults(do=_restore)

    word = words.add_parser("apply", help="record the document on standard input as what this host should be")
    word.add_argument("--check", action="store_true", help="only say what differs from it")
    word.set_defaults(do=_apply)

    word = words.add_parser("collect", help="remove generations that are of no use any more")
    word.add_argument("--keep", type=int, required=True, help="how many good ones to keep beside the current one")
    word.add_argument("--check", action="store_true", help="only say what would be removed")
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

    told = verify.look(given.deep, given.reply, given.document)
    print(json.dumps(told | ({"status": status.read()} if given.reply else {})))


def _restore(given: argparse.Namespace) -> None:
    from zorac_host import activation, restore

    if not given.check:
        activation.wait()
    print(json.dumps(restore.restore(given.check, given.begin, given.deep)))


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
