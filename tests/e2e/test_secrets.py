"""What is secret stays so at the most verbose log level, whatever goes well or wrong: in logs, metrics, status,
console, command lines and answers.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import documents
import fake_hub
import http_calls
import real_node
from running_up import DRIFT, Fleet, started

EXAMPLE = documents.REPOSITORY / "examples" / "three-nodes.yaml"
KEY = "sk-drift-7Q2m-the-clients-key"
GUESS = "sk-drift-9Z8n-a-guessed-key"
HUB_TOKEN = "hf_4Xw1-the-hubs-token"
ENVIRONMENT = "value-5Tt3-of-the-engines-environment"
PROMPT = "words-6Rr9-of-the-prompt"
SESSION = "session-8Kk2-of-a-client"
CHAT = "/v1/chat/completions"


class Told:
    """All that was said to anybody, by whom."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.where: dict[str, str] = {}

    def keep(self, place: str, text: str | bytes) -> None:
        self.where[place] = text if isinstance(text, str) else text.decode(errors="replace")

    def ask(self, url: str, method: str, path: str, body: Any = None, **headers: str) -> int:
        reply = http_calls.call(url, method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        self.keep(f"{method} {path} ({len(self.where)})", json.dumps(reply.headers) + reply.raw.decode())
        return reply.status

    def leaks(self) -> dict[str, list[str]]:
        """Secrets by name, and where they were told."""
        spelled = {name: (text, _base64(text)) for name, text in self.secrets.items()}
        found = {
            name: [place for place, text in self.where.items() if any(form in text for form in forms)]
            for name, forms in spelled.items()
        }
        return {name: places for name, places in found.items() if places}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Two simulated nodes behind a router that wants keys."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["engine"] = {"device": "sim", "env": [{"name": "SOME_TOKEN", "value": ENVIRONMENT}]}
    document["spec"]["replicas"] = 2
    document["spec"]["auth"] = {"apiKeysSecretRef": {"name": "keys"}}
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def body(**fields: Any) -> dict[str, Any]:
    return {
        "model": "drift-tiny",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 4,
        **fields,
    }


def clients_ask(told: Told, url: str) -> None:
    right = {"authorization": f"Bearer {KEY}", "x_session": SESSION}
    assert told.ask(url, "POST", CHAT, body(), **right) == 200
    assert told.ask(url, "POST", CHAT, body(stream=True), **right) == 200
    assert told.ask(url, "POST", CHAT, body(temperature=9), **right) == 400
    assert told.ask(url, "POST", CHAT, body(unknown=1), **right) == 400
    assert told.ask(url, "POST", CHAT, body() | {"model": "another"}, **right) == 404
    assert told.ask(url, "POST", CHAT, b'{"messages": "' + PROMPT.encode(), **right) == 400
    assert told.ask(url, "GET", "/v1/nothing", **right) == 404
    assert told.ask(url, "POST", "/tokenize", {"prompt": PROMPT}, **right) == 200
    assert told.ask(url, "POST", CHAT, body(), authorization=f"Bearer {GUESS}") == 401
    assert told.ask(url, "POST", CHAT, body(), authorization=f"Basic {_base64(GUESS)}") == 401
    assert told.ask(url, "POST", CHAT, body()) == 401


def people_look(told: Told, fleet: Fleet, run: Mapping[str, Any]) -> None:
    admin, door, token = run["admin_url"], run["door_url"], run["token"]
    control = {"x_drift_token": token}
    for path in ("/metrics", "/readyz", "/control/v1/nodes", "/control/v1/report", "/control/v1/promise"):
        assert told.ask(admin, "GET", path, **control) == 200
    assert told.ask(admin, "GET", "/control/v1/nodes", x_drift_token=GUESS) == 401
    assert told.ask(admin, "PUT", "/control/v1/promise", {"epoch": "never"}, **control) == 400
    for node in json.loads(fleet.top("--json"))["nodes"]:
        assert told.ask(node["url"], "GET", "/metrics") == 200
        for path in ("/control/v1/report", "/kv/v1/state"):
            assert told.ask(node["control_url"], "GET", path, **control) == 200
        assert told.ask(node["control_url"], "PUT", "/control/v1/split", {"epoch": "never"}, **control) == 400
        assert told.ask(node["control_url"], "GET", "/control/v1/report", x_drift_token=GUESS) == 401
    for path in ("/metrics", "/v1/services", f"/v1/services/default/{run['name']}", "/console/v1/snapshot"):
        told.ask(door, "GET", path)
    told.ask(door, "GET", f"/console/v1/snapshot?service=default/{run['name']}")
    question = {
        "namespace": "default",
        "name": run["name"],
        "messages": body()["messages"],
        "api_key": KEY,
    }
    assert told.ask(door, "POST", "/console/v1/chat", question, authorization=f"Bearer {GUESS}") == 401
    console_token = fleet.said.partition("#token=")[2].split()[0]
    told.ask(door, "POST", "/console/v1/chat", question, authorization=f"Bearer {console_token}")
    wrong = question | {"api_key": GUESS}
    told.ask(door, "POST", "/console/v1/chat", wrong, authorization=f"Bearer {console_token}")
    told.secrets["the console's token"] = console_token
    for command in (("status", "--local", run["name"]), ("explain", "--local", run["name"])):
        done = subprocess.run(
            [*DRIFT, *command],
            capture_output=True,
            text=True,
            timeout=real_node.DEADLINE_S,
            env=fleet.environ,
            check=False,
        )
        assert done.stdout
        told.keep(f"drift {command[0]}", done.stdout + done.stderr)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_service_on_this_machine_tells_nobody(service: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    variables: dict[str, Any] = {
        "XDG_RUNTIME_DIR": str(runtime),
        "DRIFT_API_KEYS": KEY,
        "HF_TOKEN": HUB_TOKEN,
    }
    with started(service, "--log-level", "debug", **variables) as fleet:
        (file,) = (runtime / "drift").iterdir()
        run = json.loads(file.read_bytes())
        told = Told(
            **{
                "the client's key": KEY,
                "a guessed key": GUESS,
                "the hub's token": HUB_TOKEN,
                "the engine's environment": ENVIRONMENT,
                "the prompt": PROMPT,
                "the session": SESSION,
                "the control token": run["token"],
            }
        )
        clients_ask(told, fleet.url)
        people_look(told, fleet, run)
        for child in psutil.Process(fleet.process.pid).children(recursive=True):
            told.keep(f"command line of {child.pid}", " ".join(child.cmdline()))
        psutil.Process(fleet.pid_of(f"{run['name']}-0")).kill()
        fleet.wait_for(f"node {run['name']}-0 serves again")
        fleet.process.terminate()
        assert fleet.ended() == 0
        *lines, welcome = (
            fleet.said.partition("#token=")[0],
            fleet.said.partition("#token=")[2].partition("\n")[2],
        )
        told.keep("logs", "\n".join([*lines, welcome]))
        assert re.search(r" debug +request .*path=/tokenize", told.where["logs"])
        assert told.leaks() == {}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[fake_hub.FakeHub]:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with fake_hub.serve({"owner/gated": folder, "owner/open": folder}) as hub:
        hub.gated.add("owner/gated")
        yield hub


@pytest.mark.parametrize("name", ["gated", "open", "missing"])
def test_a_node_that_can_not_fetch_its_model_does_not_tell_the_hubs_token(
    hub: fake_hub.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    monkeypatch.setenv("DRIFT_CONTROL_TOKEN", GUESS)
    options = {"model": f"hf://owner/{name}", "port": 0, "control_port": 0, "log_level": "debug"}
    done = subprocess.run(
        [sys.executable, "-m", "drift_engine.node", "--options", json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=real_node.DEADLINE_S,
        check=False,
    )
    assert done.returncode == 1
    assert hub.requests
    told = Told(**{"the hub's token": HUB_TOKEN, "the control token": GUESS})
    told.keep("its output", done.stdout + done.stderr)
    assert told.leaks() == {}
