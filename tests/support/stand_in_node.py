"""A node process without an engine, for tests of what starts, watches and ends one: same options, same /readyz.

    python -m stand_in_node --options JSON

`STAND_IN` in the environment says how it behaves: "serve" (default), "die-loading", "deaf" (ignores SIGTERM),
"fork" (leaves a child behind in its session). SIGUSR1 ends it with exit code 7.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

from drift_engine import options

STAGES = [("reading weights", 1, 4), ("reading weights", 3, 4), ("warming up", 0, 0)]


class Handler(http.server.BaseHTTPRequestHandler):
    probes = 0

    def do_GET(self) -> None:
        Handler.probes += 1
        if Handler.probes > len(STAGES):
            self._answer(200, {"status": "ready"})
        else:
            stage, done, total = STAGES[Handler.probes - 1]
            self._answer(503, {"status": "loading", "stage": stage, "done": done, "total": total})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


def stop(number: int, frame: FrameType | None) -> None:
    print(f"stand-in got {signal.Signals(number).name}", file=sys.stderr, flush=True)
    if behaviour != "deaf":
        threading.Thread(target=server.shutdown).start()


def die(number: int, frame: FrameType | None) -> None:
    print("ran out of luck", file=sys.stderr, flush=True)
    os._exit(7)


behaviour = os.environ.get("STAND_IN", "serve")
asked = options.parse(sys.argv[sys.argv.index("--options") + 1])
if behaviour == "die-loading":
    sys.exit("stand-in: no weights in " + asked.model)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, die)
server = http.server.HTTPServer((asked.host, asked.port), Handler)
if behaviour == "fork":
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    print(f"child {child.pid}", file=sys.stderr, flush=True)
print(
    f"stand-in {os.getpid()} serves {asked.served_model_name} on port {asked.port}",
    file=sys.stderr,
    flush=True,
)
server.serve_forever()
server.server_close()
