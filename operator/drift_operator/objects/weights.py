"""Where a node finds its model: a URI of the engine's, and the volume behind it.

hf:// is downloaded by the node itself, into its cache. The others are mounted read-only: a claim, a folder of the
host (which the Pod Security Standard `restricted` forbids), or an image as a volume. That needs the feature
ImageVolume (off before Kubernetes 1.35) and a container runtime that has it: an API server without it takes the pod
and leaves the volume out, and the node says that there is no /model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from drift_operator.driftservice import Model
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions

VOLUME = "model"
FOLDER = "/model"


@dataclass(frozen=True)
class Weights:
    uri: str
    """As the engine reads it."""
    volume: Manifest | None = None
    """Mounted at `FOLDER`; None where nothing is mounted."""


def problem(model: Model) -> str | None:
    """What is wrong with the place of a model on a cluster; None where nothing is."""
    scheme, _, rest = model.uri.partition("://")
    if scheme == "s3":
        return (
            "spec.model.uri: s3:// is not fetched by this version; mount the bucket as a claim (a CSI driver does) "
            "and give pvc://CLAIM/PATH"
        )
    if scheme in ("pvc", "file") and ".." in PurePosixPath(unquote(rest)).parts:
        return f"spec.model.uri: {model.uri} has '..' in its path"
    return None


def found(model: Model, options: OperatorOptions) -> Weights:
    """Of a model that has no `problem`."""
    scheme, _, rest = model.uri.partition("://")
    match scheme:
        case "pvc":
            claim, _, path = rest.partition("/")
            volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            inside = "/".join(PurePosixPath(unquote(path)).parts)
            return Weights(_folder(inside), volume)
        case "file":
            return Weights(_folder(), {"hostPath": {"path": unquote(rest), "type": "Directory"}})
        case "oci":
            return Weights(_folder(), {"image": {"reference": rest, "pullPolicy": options.image_pull_policy}})
        case _:
            return Weights(model.uri)


def _folder(inside: str = "") -> str:
    return f"file://{quote(str(PurePosixPath(FOLDER) / inside.lstrip('/')))}"
