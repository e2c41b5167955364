"""systemd changes no value in an engine's unit: the process gets what was given."""

import base64
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.templates.render import render_file
from tests.unit.unit_values import names, values

pytestmark = pytest.mark.host

_PYTHON = "/usr/bin/python3"
_TELL = "import json,os,sys;print(json.dumps([sys.argv[1:],dict(os.environ)]))"
# From a review of the project, and from the warnings in systemd's manual pages.
_KNOWN = [
    "50%h",
    "%%",
    "%",
    "$HOME",
    "${HOME}",
    "$$",
    'a"b',
    '{"a":1}',
    "a'b",
    "\\",
    "\\n",
    "\\x41",
    " ",
    "",
    ";",
    "#",
    "ä😀",
    "a b ",
]


def drawn():
    """Many random variables and arguments, the same ones in every run."""
    found = []

    @settings(
        database=None, derandomize=True, max_examples=40, phases=[Phase.generate], suppress_health_check=HealthCheck
    )
    @given(st.dictionaries(names, values, max_size=8), st.lists(values, max_size=8))
    def draw(variables, arguments):
        found.append((variables, arguments))

    draw()
    variables = {f"X{number}_{name}": value for number, (each, _) in enumerate(found) for name, value in each.items()}
    known = {f"KNOWN{number}": value for number, value in enumerate(_KNOWN)}
    return {**variables, **known}, [*_KNOWN, *(value for _, each in found for value in each)]


def test_the_process_gets_the_given_values(offline, inside):
    environment, arguments = drawn()
    assert len(environment) > 100
    assert len(arguments) > 100
    folder = '/opt/a b "50%$HOME'
    program = {
        "name": "units-test",
        "title": "100% \\",
        "documentation": "https://docs.vllm.ai",
        "command": [_PYTHON, "-c", _TELL, *arguments],
        "environment": environment,
        "stop_seconds": 1,
    }
    unit = render_file(
        "engine_service",
        "etc/systemd/system/engine.service.j2",
        engine_service_program=program,
        engine_service_engine_path="/opt/engine",
        engine_service_path=[folder],
        engine_service_profile='my "own" 50%n',
        engine_service_user="root",
    )
    # Run to its end; without the key and the wait for an answer.
    left_out = ("ExecStartPost=", "LoadCredential=", "Type=", "Restart=", "User=", "Group=", "#")
    lines = [line for line in unit.splitlines() if not line.startswith(left_out)]
    at = lines.index("[Service]") + 1
    lines[at:at] = ["Type=oneshot", "StandardOutput=truncate:/run/units-test.json"]
    text = base64.b64encode("\n".join(lines).encode()).decode()
    inside(offline, f"echo {text} | base64 --decode | sudo tee /run/systemd/system/units-test.service >/dev/null")
    inside(offline, "sudo systemctl daemon-reload && sudo systemctl start units-test")
    found_arguments, found = json.loads(inside(offline, "sudo cat /run/units-test.json"))
    assert found_arguments == arguments
    assert {name: found.get(name) for name in environment} == environment
    assert found["PATH"].split(":")[:2] == ["/opt/engine/bin", folder]
    shown = inside(offline, "systemctl show units-test --property=Description --value").removesuffix("\n")
    assert shown == '100% \\ (my "own" 50%n)'
    inside(offline, "sudo rm /run/systemd/system/units-test.service /run/units-test.json; sudo systemctl daemon-reload")
