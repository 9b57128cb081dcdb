"""The sizes of a model that a pass's time depends on, on each of the GPUs that share it.

Tensor parallelism divides heads, intermediate values and vocabulary; hidden values are whole on every GPU, which is
why each layer ends its two halves with an all-reduce.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from drift_engine.errors import CapacityError, ModelError, OptionsError
from drift_engine.hardware.profiles import Hardware
from drift_engine.models import config as configs
from drift_engine.models.fields import Fields, read_json

FOLDER = Path(__file__).with_name("shapes")


class ModelShape(msgspec.Struct, frozen=True):
    """A dense decoder with gated feed-forward layers. Sizes are the whole model's, properties are of one GPU."""

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = False
    bytes_per_parameter: int = 2
    bytes_per_kv_value: int = 2
    gpus: int = 1

    @classmethod
    def of(cls, config: configs.ModelConfig, name: str, gpus: int = 1) -> ModelShape:
        """Served in bfloat16, whatever the checkpoint was saved in. Raises OptionsError where `gpus` does not divide
        the model."""
        if gpus < 1:
            raise OptionsError(f"gpus: {gpus} is below the minimum 1")
        if config.num_heads % gpus or config.intermediate_size % gpus:
            raise OptionsError(
                f"gpus: {gpus} does not divide {name}'s {config.num_heads} heads and "
                f"{config.intermediate_size} intermediate values"
            )
        if config.num_kv_heads % gpus and gpus % config.num_kv_heads:
            raise OptionsError(
                f"gpus: {gpus} neither divides {name}'s {config.num_kv_heads} KV heads nor is a multiple"
            )
        return cls(
            name=name,
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            tie_word_embeddings=config.tie_word_embeddings,
            gpus=gpus,
        )

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.num_heads // self.gpus

    @property
    def kv_heads(self) -> int:
        """Copied where there are more GPUs than heads."""
        return max(1, self.num_kv_heads // self.gpus)

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def intermediate(self) -> int:
        return self.intermediate_size // self.gpus

    @property
    def vocabulary(self) -> int:
        return -(-self.vocab_size // self.gpus)

    @property
    def weight_bytes(self) -> int:
        """Without biases, which no shape has many of."""
        layer = self.hidden_size * (2 * self.q_size + 2 * self.kv_size + 3 * self.intermediate + 2)
        embeddings = self.vocabulary * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.bytes_per_parameter * (self.num_layers * layer + embeddings + self.hidden_size)

    @property
    def parameters(self) -> int:
        return self.weight_bytes // self.bytes_per_parameter

    @property
    def pairs_share(self) -> float:
        """Arithmetic of one query and one key, over all layers, in that of one token."""
        return 2 * self.num_layers * self.q_size / self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.kv_size * self.bytes_per_kv_value

    def kv_tokens(self, hardware: Hardware, share: float = 0.9) -> int:
        """Tokens whose KV fits beside the weights into `share` of the memory. Raises CapacityError where none does.

        0.9 is what engines take by default; the rest is for activations, graphs and the driver.
        """
        room_bytes = int(share * hardware.memory_bytes) - self.weight_bytes
        if room_bytes < self.kv_bytes_per_token:
            raise CapacityError(
                f"{self.name}: {self.weight_bytes / 1e9:.1f} GB of weights on each of {self.gpus} {hardware.name} "
                f"leave no room for KV in {share * hardware.memory_bytes / 1e9:.1f} GB; take more GPUs"
            )
        return room_bytes // self.kv_bytes_per_token


def names() -> tuple[str, ...]:
    """Of the shapes that are shipped."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def read(name_or_path: str, gpus: int = 1) -> ModelShape:
    """A shipped shape by its name, or any Hugging Face model folder or its config.json.

    Raises ModelError for what is no model or not supported, OptionsError where `gpus` does not divide it.
    """
    if name_or_path in names():
        return ModelShape.of(configs.read(FOLDER / name_or_path), name_or_path, gpus)
    path = Path(name_or_path)
    if path.is_dir():
        return ModelShape.of(configs.read(path), path.resolve().name, gpus)
    if not path.is_file():
        known = ", ".join(names())
        raise ModelError(f"model: {name_or_path!r} is no file, no folder and no known shape; known: {known}")
    config = configs.parse(Fields(str(path), read_json(path)), Fields(str(path), {}))
    return ModelShape.of(
        config, path.resolve().parent.name if path.name == "config.json" else path.stem, gpus
    )
