"""What goes wrong in a soak, each fault with its undoing.

`Fault.inject` is a context: what it breaks is broken inside, and mended (or left to Kubernetes to mend) at its end. A
fault chooses its victim with the run's random numbers and says whom it took.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak import processes
from benchmarks.soak.bed import Bed, Pod

Injection = Callable[[Bed, random.Random], AbstractContextManager[str]]
"""Gives the victim's name."""

STOPPED_S = 10.0
CUT_S = 12.0
"""A cut that TCP outlives: its retransmissions come 1, 3 and 7 s after the first."""
DOWN_S = 5.0
SQUEEZED_S = 30.0
SQUEEZE_BYTES = 32 * 2**20
"""Room that is left beyond what a container cannot give back. With half of it, and a disk as quick as it is, a router
reads its own code again and again, and all else on the machine's disk stands still for 20 s."""
PLAIN_BYTES_PER_S, SLOW_BYTES_PER_S = 20 * 2**20, 2**20
"""Of the disk, for a container that is short of memory."""
STALL_S, BREATH_S = 0.9, 0.1
"""Of each second the store stands still for so long: about what a cloud's disk does when its credit is used up.
Estimate."""
CLOCK_STEP = "+3600"
GAP_S = 15.0

CONTROL_PORT = 8001
VICTIM_S = 60.0


@dataclass(frozen=True)
class Fault:
    name: str
    sentence: str
    hold_s: float
    inject: Injection


def _pods(bed: Bed, component: str) -> list[Pod]:
    """One that has just been killed comes back. Raises LookupError where none does."""
    end_s = time.monotonic() + VICTIM_S
    while not (found := bed.pods(component)):
        if time.monotonic() > end_s:
            raise LookupError(f"no {component} is there to harm")
        time.sleep(1.0)
    return found


def signalled(component: str, number: signal.Signals, program: str = "") -> Injection:
    """To all processes of a container, or to those whose command line has this word. SIGSTOP is undone."""

    @contextlib.contextmanager
    def inject(bed: Bed, draw: random.Random) -> Iterator[str]:
        pod = draw.choice(_pods(bed, component))
        pids = [pid for pid in bed.pids(pod) if not program or program in processes.command_of(pid)]
        processes.send(pids, number)
        try:
            yield pod.name
        finally:
            if number == signal.SIGSTOP:
                processes.send(pids, signal.SIGCONT)

    return inject


def deleted(component: str) -> Injection:
    @contextlib.contextmanager
    def inject(bed: Bed, draw: random.Random) -> Iterator[str]:
        pod = draw.choice(_pods(bed, component))
        bed.kubectl(component)("delete", "pod", pod.name, "--wait=false")
        yield pod.name

    return inject


def restarted(program: str) -> Injection:
    """SIGKILL to a part of the control plane; it is started again, as it was, at the end."""

    @contextlib.contextmanager
    def inject(bed: Bed, _: random.Random) -> Iterator[str]:
        pid = processes.named(bed.machine, program)
        command = processes.command_of(pid)
        processes.kill(pid)
        try:
            yield program
        finally:
            processes.start(bed.machine, command, bed.folder / f"{program}.log")

    return inject


def cut_off(component: str) -> Injection:
    """A pod hears nothing and is not heard."""

    @contextlib.contextmanager
    def inject(bed: Bed, draw: random.Random) -> Iterator[str]:
        pod = draw.choice(_pods(bed, component))
        with _rules(bed, pod, ("INPUT", "!", "-i", "lo"), ("OUTPUT", "!", "-o", "lo")):
            yield pod.name

    return inject


@contextlib.contextmanager
def event_gap(bed: Bed, draw: random.Random) -> Iterator[str]:
    """A router does not hear what happens in a node's cache, nor its reports; requests go through."""
    router, node = draw.choice(_pods(bed, "router")), draw.choice(_pods(bed, "node"))
    with _rules(bed, router, ("OUTPUT", "-p", "tcp", "-d", node.address, "--dport", str(CONTROL_PORT))):
        yield f"{router.name} of {node.name}"


@contextlib.contextmanager
def _rules(bed: Bed, pod: Pod, *rules: tuple[str, ...]) -> Iterator[None]:
    """What these match in the pod's network is dropped. The network outlives the container: it is held open."""
    with Path(f"/proc/{bed.pids(pod)[0]}/ns/net").open("rb") as network:
        inside = ("nsenter", f"--net=/proc/self/fd/{network.fileno()}", "iptables", "-w", "5")

        def change(verb: str, rule: tuple[str, ...]) -> None:
            chain, *match = rule
            processes.run(*inside, verb, chain, *match, "-j", "DROP", keep=(network.fileno(),))

        done = []
        try:
            for rule in rules:
                change("-I", rule)
                done.append(rule)
            yield
        finally:
            for rule in done:
                change("-D", rule)


@contextlib.contextmanager
def slow_store(bed: Bed, _: random.Random) -> Iterator[str]:
    """Each write of the API server waits, as on a disk that can't keep up."""
    pid = processes.named(bed.machine, "etcd")
    ended = threading.Event()

    def stutter() -> None:
        while not ended.is_set():
            processes.send([pid], signal.SIGSTOP)
            ended.wait(STALL_S)
            processes.send([pid], signal.SIGCONT)
            ended.wait(BREATH_S)

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield "etcd"
    finally:
        ended.set()
        thread.join()


def short_of_memory(component: str, *, slow_disk: bool = False) -> Injection:
    """Its container may hold little more than what it cannot give back, so that files' pages are dropped and read
    again: at 20 MB/s, or 1 MB/s from a slow disk."""

    @contextlib.contextmanager
    def inject(bed: Bed, draw: random.Random) -> Iterator[str]:
        pod = draw.choice(_pods(bed, component))
        with _throttled(bed, pod, SLOW_BYTES_PER_S if slow_disk else PLAIN_BYTES_PER_S):
            group = processes.control_group(bed.machine, pod.container)
            high = group / "memory.high"
            file = high if high.exists() else group / "memory.limit_in_bytes"
            before = file.read_text().strip()
            fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            held = int(fields.get("anon") or fields["total_rss"])
            held += int(fields.get("shmem") or fields.get("total_shmem") or 0)
            file.write_text(str(held + SQUEEZE_BYTES))
            try:
                yield pod.name
            finally:
                with contextlib.suppress(OSError):  # gone, if it was killed for its memory
                    file.write_text(before)

    return inject


@contextlib.contextmanager
def _throttled(bed: Bed, pod: Pod, bytes_per_s: int) -> Iterator[None]:
    number = processes.run("findmnt", "-nro", "MAJ:MIN", "-T", str(bed.folder)).strip()
    group = processes.control_group(bed.machine, pod.container, "blkio")
    files = [group / f"blkio.throttle.{way}_bps_device" for way in ("read", "write")]
    for file in files:
        file.write_text(f"{number} {bytes_per_s}")
    try:
        yield
    finally:
        for file in files:
            with contextlib.suppress(OSError):
                file.write_text(f"{number} 0")


def clock_stepped(component: str) -> Injection:
    """Wall clocks of all pods of this kind go an hour ahead and back again; the monotonic ones run on."""

    @contextlib.contextmanager
    def inject(bed: Bed, _: random.Random) -> Iterator[str]:
        bed.set_clock(component, CLOCK_STEP)
        try:
            yield f"all of {component}"
        finally:
            bed.set_clock(component, "+0")

    return inject


KILL, STOP = signal.SIGKILL, signal.SIGSTOP

FAULTS = (
    Fault("node-killed", "SIGKILL to both processes of a node", 0, signalled("node", KILL)),
    Fault("node-core-killed", "SIGKILL to a node's core", 0, signalled("node", KILL, "drift_engine.core")),
    Fault("node-stopped", "SIGSTOP to a node for 10 s", STOPPED_S, signalled("node", STOP)),
    Fault("node-deleted", "a node's pod deleted", 0, deleted("node")),
    Fault("node-cut-off", "a node's network cut for 12 s", CUT_S, cut_off("node")),
    Fault("node-short-of-memory", "32 MiB of room for a node, 30 s", SQUEEZED_S, short_of_memory("node")),
    Fault(
        "node-on-a-slow-disk",
        "the same, and 1 MB/s from its disk",
        SQUEEZED_S,
        short_of_memory("node", slow_disk=True),
    ),
    Fault("router-killed", "SIGKILL to a router", 0, signalled("router", KILL)),
    Fault("router-stopped", "SIGSTOP to a router for 10 s", STOPPED_S, signalled("router", STOP)),
    Fault("router-deleted", "a router's pod deleted", 0, deleted("router")),
    Fault("router-cut-off", "a router's network cut for 12 s", CUT_S, cut_off("router")),
    Fault(
        "router-short-of-memory", "32 MiB of room for a router, 30 s", SQUEEZED_S, short_of_memory("router")
    ),
    Fault("event-gap", "a router hears nothing of a node's cache for 15 s", GAP_S, event_gap),
    Fault("operator-killed", "SIGKILL to the operator", 0, signalled("operator", KILL)),
    Fault("operator-stopped", "SIGSTOP to the operator for 10 s", STOPPED_S, signalled("operator", STOP)),
    Fault("operator-deleted", "the operator's pod deleted", 0, deleted("operator")),
    Fault("operator-cut-off", "the operator's network cut for 12 s", CUT_S, cut_off("operator")),
    Fault("api-server-restarted", "the API server down for 5 s", DOWN_S, restarted("kube-apiserver")),
    Fault(
        "controllers-restarted",
        "the controller manager down for 5 s",
        DOWN_S,
        restarted("kube-controller-manager"),
    ),
    Fault("kubelet-restarted", "the kubelet down for 5 s", DOWN_S, restarted("kubelet")),
    Fault("slow-store", "etcd stands still 0.9 s of each second, 30 s", SQUEEZED_S, slow_store),
    Fault(
        "clock-of-nodes", "wall clocks of the nodes an hour ahead for 30 s", SQUEEZED_S, clock_stepped("node")
    ),
    Fault(
        "clock-of-operator",
        "wall clock of the operator an hour ahead for 30 s",
        SQUEEZED_S,
        clock_stepped("operator"),
    ),
)
"""Estimates, all the times: long enough to be noticed, short enough for two minutes."""


def order(faults: tuple[Fault, ...], count: int, draw: random.Random) -> list[Fault]:
    """Each once in a random order before any comes twice."""
    found: list[Fault] = []
    while len(found) < count:
        found += draw.sample(faults, len(faults))
    return found[:count]
