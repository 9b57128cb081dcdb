"""drift-tiny: a language model small enough to ship inside a wheel, and the scripts that made it.

Only `checkpoint_path` is needed to serve it. The other modules train and evaluate it and need torch and
transformers: `python -m drift_tiny train`, `python -m drift_tiny evaluate`.
"""

from pathlib import Path


def checkpoint_path() -> Path:
    """The folder of the shipped checkpoint, in Hugging Face format."""
    return Path(__file__).parent / "checkpoint"
