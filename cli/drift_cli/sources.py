"""Where `drift status` and `drift explain` see services: a cluster's API server, or what runs on this machine.

In: what the command line says. Out: a look at the DriftServices that are wanted, each with its status, as often as
one is asked for. On a cluster the operator is not needed: all it has to say stands in the status. On this machine the
`drift up` that does its work is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drift_cli import runs
from drift_cli.looking import LookError, OperatorSeen, ask_operator, ask_status
from drift_operator.driftservice import DriftService
from drift_operator.local import planning

Look = Callable[[], Awaitable[list[DriftService]]]
"""Raises LookError."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Of the pod that we run in, if we do."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="name of a DriftService")
    parser.add_argument(
        "-n", "--namespace", help="of a cluster (default: the kubeconfig's, as for kubectl; else default)"
    )
    parser.add_argument("--context", help="of the kubeconfig (default: its current one)")
    parser.add_argument("--local", action="store_true", help="what runs on this machine, not on a cluster")
    parser.add_argument("--json", action="store_true", help="as data")
    parser.epilog = (
        "Without a kubeconfig ($KUBECONFIG, ~/.kube/config, a pod's own account) --local is meant. "
        "Exit status: 0 ready and the promise kept, 1 not, 2 not found or nothing to see."
    )


def on_this_machine(args: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    """Whether this machine is meant."""
    if args.local:
        return True
    if args.context is not None or args.namespace is not None:
        return False
    if environ.get("KUBECONFIG") or (ACCOUNT / "token").exists():
        return False
    return not Path(kubeconfig(environ)).exists()


def kubeconfig(environ: Mapping[str, str]) -> str:
    """A path, or several with colons between them, as kubectl has it. The client itself reads it only when loaded."""
    return environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "/")) / ".kube" / "config")


@contextlib.asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[Look]:
    """Raises LookError."""
    if on_this_machine(args, os.environ):
        yield _on_this_machine(args.service)
        return
    if importlib.util.find_spec("kubernetes") is None:
        raise LookError(
            "the cluster's client is not installed; install it with: pip install 'drift-serve[operator]'"
        )
    async with _cluster(args) as found:
        yield found


def _files(environ: Mapping[str, str]) -> str:
    """Raises LookError; the client would log and go on without."""
    files = kubeconfig(environ)
    if not any(Path(each).is_file() for each in files.split(os.pathsep)):
        raise LookError(f"the kubeconfig can't be used: {files} is not there")
    return files


def parse(body: Mapping[str, Any]) -> DriftService:
    """Also of an operator that is newer than this command: what it does not know is left out. Raises LookError."""
    wanted = {key: body[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in body}
    try:
        return DriftService.model_validate(wanted, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        name = body.get("metadata", {}).get("name", "?")
        raise LookError(f"DriftService {name} can't be read: {where}: {first['msg']}") from error


def _on_this_machine(name: str | None) -> Look:
    async def seen() -> list[DriftService]:
        run = _run(name)
        status = await asyncio.to_thread(ask_status, run.door_url, planning.NAMESPACE, run.name)
        found = parse(run.service | ({} if status is None else {"status": status}))
        # A file may name a cluster's namespace; here there is none.
        here = found.metadata.model_copy(update={"namespace": None, "generation": None})
        return [found.model_copy(update={"metadata": here})]

    return seen


def ask_run(name: str | None) -> OperatorSeen:
    """What the run on this machine tells beyond the status. Raises LookError."""
    run = _run(name)
    return ask_operator(run.door_url, planning.NAMESPACE, run.name)


def _run(name: str | None) -> runs.Run:
    run = runs.newest(os.environ, name)
    if run is None:
        called = f" of {name}" if name is not None else ""
        raise LookError(f"no `drift up`{called} of yours runs on this machine")
    return run


@contextlib.asynccontextmanager
async def _cluster(args: argparse.Namespace) -> AsyncIterator[Look]:
    # They cost a second to load, and belong to an extra.
    from kubernetes.aio import client, config

    from drift_operator.cluster import kinds
    from drift_operator.cluster.api import Api, ApiError, NotFoundError

    settings, namespace = client.Configuration(), "default"
    try:
        if not os.environ.get("KUBECONFIG") and (ACCOUNT / "token").exists() and args.context is None:
            config.load_incluster_config(client_configuration=settings)
            namespace = (ACCOUNT / "namespace").read_text()
        else:
            files = _files(os.environ)
            await config.load_kube_config(files, args.context, client_configuration=settings)
            namespace = _namespace(config.list_kube_config_contexts(files), args.context) or namespace
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        said = " ".join(str(error).split())
        raise LookError(f"the kubeconfig can't be used: {said}") from error
    api = Api(client.ApiClient(settings))
    chosen = args.namespace or namespace
    everywhere = getattr(args, "all_namespaces", False)

    async def seen() -> list[DriftService]:
        try:
            if args.service is not None:
                return [parse(await api.get(kinds.DRIFT_SERVICE, chosen, args.service))]
            found, _ = await api.list(kinds.DRIFT_SERVICE, None if everywhere else chosen)
        except NotFoundError as error:
            raise LookError(str(error)) from error
        except (ApiError, TimeoutError) as error:
            raise LookError(f"{settings.host}: {error or 'no answer in time'}") from error
        if not found:
            where = "on this cluster" if everywhere else f"in namespace {chosen}"
            raise LookError(f"there is no DriftService {where}")
        # A list leaves out what all its items have in common.
        common = {"apiVersion": kinds.DRIFT_SERVICE.api_version, "kind": kinds.DRIFT_SERVICE.kind}
        return [parse(common | item) for item in found]

    try:
        yield seen
    finally:
        await api.close()


def _namespace(contexts: Any, name: str | None) -> str | None:
    """Of a context, as the client lists them: all, and the current one."""
    every, current = contexts
    chosen = next((each for each in every if each["name"] == name), current)
    found = chosen.get("context", {}).get("namespace")
    return None if found is None else str(found)
