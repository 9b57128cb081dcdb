"""Where a model's folder is: a path, a URI of this machine, the model inside this package, or the hub. Free of torch.

The node calls `resolve` first; what it returns goes to the tokenizer, the templates and the core.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import drift_tiny
from drift_engine.errors import ModelError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes known to be needed) while files arrive; both may grow."""

SUPPORTED = "a folder, file:///folder, embedded://drift-tiny or hf://owner/name[@revision]"

# Weights, configurations, tokenizer and templates of the model itself.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]
# Mistral and Llama repositories repeat their weights in another layout.
_HUB_DUPLICATES = ["consolidated*", "*/*"]

_MOUNTED_BY_A_CLUSTER = ("pvc", "oci", "s3")


def resolve(uri: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """The local folder of a model, downloaded if need be; `revision` is for hf:// alone.

    A broken transfer is taken up where it stopped, and a later call keeps the files that were complete. Raises
    ModelError, in one line that says what to do.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "hf":
        return _hub(uri, rest, revision, progress)
    if revision is not None:
        raise ModelError(f"revision: {revision} is given, but only hf:// models have revisions, not {uri}")
    if not separator:
        return _folder(uri, Path(uri).expanduser())
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ModelError(f"model: {uri} names the machine {parts.netloc!r}; write file:///folder")
        return _folder(uri, Path(unquote(parts.path)))
    if scheme == "embedded":
        if rest != "drift-tiny":
            raise ModelError(f"model: {uri} is not embedded; there is embedded://drift-tiny")
        return _folder(uri, drift_tiny.checkpoint_path())
    if scheme in _MOUNTED_BY_A_CLUSTER:
        raise ModelError(
            f"model: {uri} needs a cluster that mounts {scheme}:// volumes; here give {SUPPORTED}"
        )
    raise ModelError(f"model: {uri} has the unknown scheme {scheme}://; give {SUPPORTED}")


def _folder(uri: str, path: Path) -> Path:
    if not path.is_dir():
        found = "is a file, not a folder" if path.exists() else "does not exist"
        raise ModelError(f"model: {uri} {found}; give {SUPPORTED}")
    return path.resolve()


def _hub(uri: str, rest: str, revision: str | None, progress: Progress | None) -> Path:
    name, _, own_revision = rest.partition("@")
    if own_revision and revision not in (None, own_revision):
        raise ModelError(f"revision: {revision} contradicts {uri}; give one of them")
    from huggingface_hub import constants, snapshot_download  # 0.3 s to import, wanted for hf:// alone
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    revision = own_revision or revision
    hub = constants.ENDPOINT
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_DUPLICATES,
            tqdm_class=_reporting_bar(progress or (lambda done, total: None)),
        )
    except HFValidationError:
        raise ModelError(f"model: {uri} is not hf://owner/name[@revision]") from None
    except GatedRepoError as error:
        raise ModelError(
            f"model: {name} is gated; accept its terms on {hub}/{name} and set HF_TOKEN to a token that may read it"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model: {name} is not on {hub}, or it is private and HF_TOKEN does not open it"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"revision: {name} has no revision {revision}") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"model: {name} is not complete in the local cache and {hub} can't be reached ({_cause(error)})"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"model: {hub} answered {error.response.status_code} for {name}; try again"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"model: no space left in {constants.HF_HUB_CACHE} for {name}; free some or set HF_HUB_CACHE"
            ) from error
        raise ModelError(
            f"model: downloading {name} failed ({_one_line(error)}); try again to continue"
        ) from error
    except Exception as error:  # the hub's HTTP library and its transport have their own trees
        raise ModelError(
            f"model: downloading {name} failed ({_one_line(error)}); try again to continue"
        ) from error
    return Path(folder)


def _cause(error: BaseException) -> str:
    """What kept the hub from being reached: the library wraps it in advice of its own."""
    return _one_line(error.__cause__ or error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _reporting_bar(progress: Progress) -> type[Any]:
    """The hub's way to hear of bytes is a progress bar's class: one that draws nothing and reports the snapshot's."""
    from huggingface_hub.utils.tqdm import tqdm

    class ReportingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.reports = kwargs.get("name") == "huggingface_hub.snapshot_download"
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            if self.reports and self.total:
                progress(int(self.n), int(self.total))

    return ReportingBar
