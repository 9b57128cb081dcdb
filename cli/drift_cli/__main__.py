"""`python -m drift_cli` is `drift`."""

from __future__ import annotations

import sys

from drift_cli.main import main

sys.exit(main())
