"""What is in an image, in CycloneDX's format: every Python distribution that is installed, its version and licence.

    c=$(buildah from IMAGE)
    .venv/bin/python images/sbom.py "$(buildah mount "$c")" > operator.cdx.json

Debian's packages belong to the base image, whose own list tells them.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED = ("opt/app", "opt/drift/lib/python3.*/site-packages")
"""Where the Containerfiles put Drift and the packages that it needs."""


def write(root: Path) -> int:
    """Of the image whose files are below `root`, to standard output. Returns the exit status."""
    folders = [str(folder) for pattern in INSTALLED for folder in root.glob(pattern)]
    if len(folders) != len(INSTALLED):
        print(f"sbom: {root} is no image of Drift: needs {' and '.join(INSTALLED)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        # cyclonedx asks an interpreter for its path; the image's own may not run here, so this one answers for it.
        interpreter = Path(scratch, "python")
        interpreter.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps(folders))}\n")
        interpreter.chmod(0o700)
        asked = ["environment", str(interpreter), "--output-reproducible", "--output-format", "JSON"]
        return subprocess.run(
            [sys.executable, "-m", "cyclonedx_py", *asked, "--pyproject", str(REPOSITORY / "pyproject.toml")],
            timeout=300,
            check=False,
        ).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: sbom.py FOLDER_OF_AN_IMAGE'S_FILES")
    sys.exit(write(Path(sys.argv[1])))
