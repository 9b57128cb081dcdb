"""`python -m documentation`: writes docs/reference from the code; `python -m documentation site` builds the site."""

from __future__ import annotations

import subprocess
import sys

from documentation import building, reference


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["site"]):
        print("usage: python -m documentation [site]", file=sys.stderr)
        return 2
    if not arguments:
        reference.write(building.ROOT / "docs" / "reference")
        return 0
    try:
        print(f"the site is in {building.build().relative_to(building.ROOT)}")
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
