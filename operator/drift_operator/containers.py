"""A node's container within a DriftService: image, process, environment, resources (see `driftservice`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from drift_operator.fields import (
    Document,
    EnvName,
    Integer,
    Keyed,
    NodeArgument,
    PreservedObject,
    Quantities,
    Rule,
    SecretKey,
    Subdomain,
)


class SecretKeyRef(Document):
    name: Subdomain
    """The Secret's, in the service's namespace."""
    key: SecretKey
    """Of the Secret's entry."""
    optional: bool = False
    """Whether pods start without it."""


class ConfigMapKeyRef(Document):
    name: Subdomain
    """The ConfigMap's, in the service's namespace."""
    key: SecretKey
    """Of the ConfigMap's entry."""
    optional: bool = False
    """Whether pods start without it."""


def _one_source(source: Any) -> str | None:
    given = [source.secret_key_ref, source.config_map_key_ref]
    return None if given.count(None) == 1 else "needs exactly one of secretKeyRef and configMapKeyRef"


class EnvSource(Document):
    secret_key_ref: SecretKeyRef | None = None
    """An entry of a Secret."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """An entry of a ConfigMap."""

    rules = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            message="needs exactly one of secretKeyRef and configMapKeyRef",
            field="",
            broken=_one_source,
        ),
    )

    @property
    def optional(self) -> bool:
        return any(ref is not None and ref.optional for ref in (self.secret_key_ref, self.config_map_key_ref))


def _one_value(env: Any) -> str | None:
    both = env.value is not None and env.value_from is not None
    return "value and valueFrom exclude each other" if both else None


class Env(Document):
    name: EnvName
    """The variable's."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its text, as it stands here."""
    value_from: EnvSource | None = None
    """Where its text is, instead."""

    rules = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            message="value and valueFrom exclude each other",
            field="",
            broken=_one_value,
        ),
    )


class Resources(Document):
    """As a container's: quantities per resource name."""

    requests: Quantities | None = None
    """What a host must have free for the pod."""
    limits: Quantities | None = None
    """The most that the container gets; GPUs are asked for here."""


GPU = "nvidia.com/gpu"


def _gpus_match(engine: Any) -> str | None:
    limits = (engine.resources.limits if engine.resources else None) or {}
    gpus = limits.get(GPU)
    if gpus is None or str(gpus) == str(engine.tensor_parallel):
        return None
    return f"{engine.tensor_parallel} differs from the {gpus} GPUs of resources.limits['{GPU}']"


class Engine(Document):
    """The node's container and process."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the engine; the operator's own default where it is left out. A local run uses what is installed."""
    device: Literal["auto", "cpu", "cuda", "sim"] = "auto"
    """auto takes a GPU where there is one; sim answers from the latency model alone, for tests of a cluster."""
    args: Annotated[list[NodeArgument], Field(max_length=32)] | None = None
    """Further options of a node, each as --OPTION=VALUE, such as --max-running=32 or --page-tokens=32."""
    env: Annotated[list[Env], Field(max_length=64), Keyed("name")] | None = None
    """Environment variables of the engine, such as HF_TOKEN."""
    resources: Resources | None = None
    """CPU, memory and GPUs of a node."""
    tensor_parallel: Annotated[Integer, Field(ge=1, le=16)] = 1
    """GPUs that one node spreads its model over."""
    pod_template: PreservedObject | None = None
    """Merged over the pod that the operator makes: node selectors, tolerations, volumes, sidecars."""

    rules = (
        Rule(
            cel=(
                "!has(self.resources) || !has(self.resources.limits) || "
                f"!('{GPU}' in self.resources.limits) || "
                f"string(self.resources.limits['{GPU}']) == string(self.tensorParallel)"
            ),
            message=f"tensorParallel must equal resources.limits['{GPU}']",
            field="tensorParallel",
            broken=_gpus_match,
        ),
    )
