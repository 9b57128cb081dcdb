"""`python -m drift_operator.installing`: the cluster knows DriftServices as this release does.

Applies the CustomResourceDefinition (`crd`) by server-side apply and waits until the API server serves it. Helm runs
it before an install and an upgrade, because Helm itself never changes a definition that is there. DriftServices that
exist stay as they are. Exit status 0 done, 1 not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from kubernetes.aio import config

from drift_engine import logs
from drift_operator import crd
from drift_operator.cluster import api, kinds
from drift_operator.cluster.api import Api
from drift_operator.errors import ClusterError, OperatorError

DEADLINE_S = 60.0
_LOOK_S = 0.2


async def install(cluster: Api, deadline_s: float) -> None:
    """Raises ApiError if the definition is refused, ClusterError if it is not served in time."""
    definition = crd.build()
    name = definition["metadata"]["name"]
    try:
        async with asyncio.timeout(deadline_s):
            found = await cluster.apply(definition)
            while not _is_served(found):
                await asyncio.sleep(_LOOK_S)
                found = await cluster.get(kinds.DEFINITION, None, name)
    except TimeoutError:
        raise ClusterError(f"{name} is not served after {deadline_s:g} s") from None


def _is_served(definition: api.Object) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


async def _run(deadline_s: float) -> None:
    cluster = Api(await api.connect())
    try:
        await install(cluster, deadline_s)
    finally:
        await cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="drift_operator.installing", description="Applies the CustomResourceDefinition of this release."
    )
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S, metavar="S")
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(arguments.deadline_s))
    except (OperatorError, config.ConfigException) as error:
        logs.complain(str(error))
        return 1
    logs.say({"applied": crd.build()["metadata"]["name"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
