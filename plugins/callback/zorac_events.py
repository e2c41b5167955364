"""Write what happens in a run to a pipe, as lines of JSON. zorac_deploy/runner.py reads them."""

import json
import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: zorac_events
type: notification
short_description: Events of a run as lines of JSON
description:
  - The pipe's file descriptor is in the environment variable ZORAC_DEPLOY_EVENTS.
"""


class CallbackModule(CallbackBase):
    """One line per task that begins or ends."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "zorac_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        descriptor = int(os.environ["ZORAC_DEPLOY_EVENTS"])
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def v2_playbook_on_task_start(self, task, is_conditional):  # noqa: ARG002 - Ansible names it
        """A task begins."""
        self._write("started", task)

    def v2_playbook_on_handler_task_start(self, task):
        """A handler begins."""
        self._write("started", task)

    def v2_runner_on_ok(self, result):
        """A task ended well."""
        self._write("ok", result.task, result.result)

    def v2_runner_retry(self, result):
        """A task is tried again."""
        self._write("waiting", result.task, result.result)

    def v2_runner_on_skipped(self, result):
        """A task was skipped."""
        self._write("skipped", result.task)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        """A task failed."""
        if not ignore_errors:
            self._write("failed", result.task, result.result)

    def v2_runner_on_unreachable(self, result):
        """The host does not answer."""
        self._write("unreachable", result.task, result.result)

    def _write(self, event, task, result=None):
        role = task._role.get_name() if task._role else ""
        line = {"event": event, "role": role, "task": task.name or task.action, "result": result or {}}
        try:
            self._pipe.write(json.dumps(line, default=str) + "\n")
            self._pipe.flush()
        except BrokenPipeError:
            # Nobody reads it any more, so nobody holds the host's lock either. Ansible would go on.
            os.kill(os.getpid(), signal.SIGTERM)
