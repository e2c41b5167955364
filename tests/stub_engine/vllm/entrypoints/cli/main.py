"""A stub engine to test faults that the real one cannot show on demand. It is never part of a demonstration.

It replaces vLLM's package, reads the same configuration file, runs the same middleware, answers the same paths and has
a child process as vLLM does. The flag ``fault`` selects a fault, ``load-seconds`` the loading time.
STUB_WEIGHTS_GIB in its environment is the size of the weights that it logs.
"""

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_WEIGHTS_GIB = os.environ.get("STUB_WEIGHTS_GIB", "13.58")
# The log of vLLM 0.26.
_LOG = """\
(APIServer pid=1) INFO 11-23 17:20:28 [api_utils.py:273] non-default args: {{}}
(EngineCore pid=2) INFO 11-23 17:21:23 [model_runner.py:305] Model loading took {weights} GiB and 2.680929 seconds
(EngineCore pid=2) INFO 11-23 17:22:03 [gpu_worker.py:560] Available KV cache memory: 6.12 GiB
(EngineCore pid=2) INFO 11-23 17:22:03 [kv_cache_utils.py:2177] GPU KV cache size: 80,240 tokens
Application startup complete"""


def main() -> None:
    """Serve, or simulate a fault."""
    lines = [line for line in Path(sys.argv[3]).read_text().splitlines() if ":" in line and line[0] != "#"]
    flags = {name: json.loads(value) for name, value in (line.split(":", 1) for line in lines)}
    module, _, name = sys.argv[sys.argv.index("--middleware") + 1].rpartition(".")
    Engine(flags, getattr(importlib.import_module(module), name)).serve()


class Server(ThreadingHTTPServer):
    """Listens on an address of IPv4 or IPv6."""


class Engine:
    """The stub, with its flags."""

    def __init__(self, flags: dict[str, object], middleware: Callable[..., Any]) -> None:
        self.flags, self.fault, self.middleware = flags, flags.get("fault", ""), middleware
        self.tokens, self.began, self.stopping = 0, time.monotonic(), threading.Event()

    def serve(self) -> None:
        """Load, serve, and end at SIGTERM unless the fault says otherwise."""
        if self.fault == "exits at start":
            sys.exit(0)
        if self.fault == "hangs at load":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        # In its own session, as a worker that lost its parent.
        subprocess.Popen(["sleep", "3600"], start_new_session=True)
        time.sleep(float(self.flags.get("load-seconds", 1)))
        if self.fault == "exits later":
            threading.Timer(3, os._exit, [0]).start()
        signal.signal(signal.SIGTERM, self._ignore if self.fault == "ignores the signal" else self._stop)
        host = str(self.flags["host"])
        Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = Server((host, int(str(self.flags["port"]))), handler(self))
        if self.fault == "leaves a child on the port":
            os.set_inheritable(server.fileno(), True)
            subprocess.Popen(["sleep", "3600"], close_fds=False, start_new_session=True)
        print(_LOG.format(weights=43.9 if self.fault == "loads more than planned" else _WEIGHTS_GIB), flush=True)  # noqa: T201
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.stopping.wait()

    def _stop(self, *_: object) -> None:
        self.stopping.set()

    def _ignore(self, *_: object) -> None:
        print("the stub ignores the signal", flush=True)  # noqa: T201 - its journal

    @property
    def mute(self) -> bool:
        """Whether completions hang."""
        if self.fault == "hangs later":
            return time.monotonic() - self.began > 8
        return self.fault == "never completes"


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    """The request handler of `engine`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._ask(self._get)

        def do_POST(self) -> None:
            self._ask(self._post)

        def _ask(self, route: Callable[[], None]) -> None:
            """Answer by `route` if the middleware passes the request, otherwise as the middleware does."""

            async def app(*_: object) -> None:
                route()

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    status.append(message["status"])
                else:
                    self._answer(status[0], message["body"].decode())

            status: list[int] = []
            if engine.fault == "answers without a key" and self.path == "/invocations":
                route()
                return
            headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
            scope = {"type": "http", "method": self.command, "path": self.path, "headers": headers}
            asyncio.run(engine.middleware(app)(scope, None, send))

        def _get(self) -> None:
            known = {
                "/health": "",
                "/metrics": f"vllm:num_requests_running 0.0\nvllm:generation_tokens_total {engine.tokens}.0\n",
                "/openapi.json": json.dumps({"paths": {"/tokenize": {"post": {"requestBody": {}}}}}),
                "/v1/models": json.dumps({"data": [{"id": engine.flags["served-model-name"]}]}),
            }
            self._answer(200 if self.path in known else 404, known.get(self.path, ""))

        def _post(self) -> None:
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            except ValueError:
                self._answer(400, "")
                return
            if engine.mute:
                time.sleep(3600)
            engine.tokens += 7
            if engine.fault == "answers garbage":
                self._answer(200, "data: \x00\x01!!!\n\n")
            elif not asked.get("stream"):
                self._answer(200, json.dumps({"choices": [{"message": {"content": "Rome"}}]}))
            else:
                words = [{"choices": [{"delta": {"content": word}}]} for word in ("The capital", " is Rome.")]
                usage = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 7}}
                parts = [json.dumps(each) for each in (*words, usage)]
                self._answer(200, "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"]), "text/event-stream")

        def _answer(self, status: int, text: str, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler
