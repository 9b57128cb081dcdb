"""The model families that Drift serves, by the architecture that config.json names."""

from __future__ import annotations

from drift_engine.models import llama, mistral, qwen2, qwen3
from drift_engine.models.family import Family

FAMILIES: dict[str, Family] = {
    family.architecture: family for family in (llama.FAMILY, qwen2.FAMILY, qwen3.FAMILY, mistral.FAMILY)
}
