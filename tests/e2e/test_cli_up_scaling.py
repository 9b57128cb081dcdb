"""`drift up` with `autoscaling`: the number of node processes follows the load, and nobody's request fails for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import yaml

import documents
import http_calls
import real_node
from running_up import Fleet, started

SPEC = {
    # A large model on one simulated H200: five clients with long prompts are more than one node carries.
    "engine": {"device": "sim", "args": ["--sim-model=llama-34b"]},
    "slo": {"ttft": {"targetMs": 3000}, "tbt": {"targetMs": 200}, "window": "10s"},
    "autoscaling": {"minReplicas": 1, "maxReplicas": 2, "stabilization": {"down": "0s"}, "predictor": "None"},
}


class Clients:
    """Each sends its next request when the last one was answered."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self._url = url
        self._number = itertools.count()

    @contextlib.contextmanager
    def asking(self, count: int, words: int) -> Iterator[None]:
        """Meanwhile, so many of them, each with prompts of so many sentences."""
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(words, over)) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self, words: int, over: threading.Event) -> None:
        while not over.wait(0.2):
            prompt = f"{next(self._number)}: " + "What is Drift? " * words
            body = {"model": "demo", "prompt": prompt, "max_tokens": 4, "ignore_eos": True}
            self.statuses.append(http_calls.post(self._url, "/v1/completions", body).status)


def nodes_are(fleet: Fleet, count: int) -> None:
    def as_many() -> bool:
        serving = [node for node in fleet.nodes().values() if node["eligible"] and not node["removed"]]
        return len(serving) == count

    real_node.until(as_many, f"{count} nodes")


def reasons(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Of decisions on the number of nodes, the oldest first."""
    told = json.loads(fleet.drift("explain", "--local", "--json"))["decisions"]
    return [
        (each["from"], each["to"], each["reason"]) for each in reversed(told) if each["lever"] == "replicas"
    ]


def test_nodes_come_with_the_load_and_go_with_it_and_no_request_fails(tmp_path: Path) -> None:
    file = tmp_path / "scaling.yaml"
    file.write_text(yaml.safe_dump(documents.minimal(**SPEC)))
    with started(file, XDG_RUNTIME_DIR=str(tmp_path / "runtime")) as fleet:
        assert "1 to 2 nodes behind a router" in fleet.said
        clients = Clients(fleet.url)
        with clients.asking(1, words=1):
            with clients.asking(5, words=800):
                fleet.wait_for("node demo-1 serves now")
                nodes_are(fleet, 2)
            (up,) = reasons(fleet)
            assert up[:2] == ("1", "2")
            assert up[2] in ("Pressure", "Burning")
            nodes_are(fleet, 1)
        assert reasons(fleet) == [up, ("2", "1", "Spare")]
        assert set(clients.statuses) == {200}
        page = fleet.drift("explain", "--local")
        assert f"{up[2]}: " in page
        assert "the run: measured" in page
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.ended() == 0
