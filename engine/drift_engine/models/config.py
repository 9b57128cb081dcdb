"""A checkpoint's config.json and generation_config.json as one frozen `ModelConfig`. Free of torch.

`read` comes first when a model is opened: it refuses what the decoder can't compute before a weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drift_engine.errors import ModelError
from drift_engine.models import registry, scalings
from drift_engine.models.fields import Fields, read_json
from drift_engine.models.scalings import Rope

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder and the ids that end its text."""

    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope: Rope
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window_tokens: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    dtype: str = "float32"
    """In which the checkpoint was saved, by config.json."""

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def qkv_size(self) -> int:
        return self.q_size + 2 * self.kv_size

    @property
    def longest_context_tokens(self) -> int:
        """The longest sequence that this decoder computes correctly: inside the window all attention is full."""
        return min(self.max_positions, self.sliding_window_tokens or self.max_positions)

    @property
    def num_parameters(self) -> int:
        layer = 2 * self.hidden_size + self.hidden_size * (self.qkv_size + self.q_size)
        layer += 3 * self.hidden_size * self.intermediate_size
        layer += self.qkv_size * self.qkv_bias + self.hidden_size * self.output_bias
        layer += (2 * self.intermediate_size + self.hidden_size) * self.mlp_bias
        layer += 2 * self.head_dim * self.qk_norm
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size

    def check_context(self, context_tokens: int) -> None:
        """Raises ModelError where sequences of `context_tokens` can't be served."""
        window = self.sliding_window_tokens
        if window is not None and context_tokens > window:
            raise ModelError(
                f"max_model_len_tokens: {context_tokens} is above the model's sliding window of {window} tokens; "
                f"sliding-window attention is not supported, serve at most {window}"
            )
        if context_tokens > self.max_positions:
            raise ModelError(
                f"max_model_len_tokens: {context_tokens} is above the model's maximum {self.max_positions}"
            )


def read(folder: Path) -> ModelConfig:
    """Reads a Hugging Face model folder. Raises ModelError naming file, field and value."""
    config = Fields(f"{folder}/config.json", read_json(folder / "config.json"))
    generation_path = folder / "generation_config.json"
    generation = Fields(str(generation_path), read_json(generation_path) if generation_path.is_file() else {})
    return parse(config, generation)


def parse(config: Fields, generation: Fields) -> ModelConfig:
    """The pure part of `read`."""
    architecture = _architecture(config)
    family = registry.FAMILIES.get(architecture)
    if family is None:
        supported = ", ".join(registry.FAMILIES)
        raise config.error("architectures", f"{architecture!r} is not supported; supported: {supported}")
    traits = family.traits(config)
    if config.text("hidden_act", "silu") != "silu":
        raise config.error("hidden_act", f"{config.values['hidden_act']!r} is not supported; supported: silu")
    quantization = config.section("quantization_config")
    if quantization is not None:
        raise config.error(
            "quantization_config",
            f"checkpoints quantized with {quantization.text('quant_method', 'an unknown method')!r} are not "
            "supported; use the float16 or bfloat16 original",
        )
    hidden_size = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads")
    num_kv_heads = config.integer("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise config.error("num_attention_heads", f"{num_heads} is not a multiple of {num_kv_heads} kv heads")
    head_dim = config.integer("head_dim", traits.default_head_dim or max(1, hidden_size // num_heads))
    if head_dim % 2:
        raise config.error("head_dim", f"{head_dim} is odd, but a rotary embedding turns pairs")
    max_positions = config.integer("max_position_embeddings")
    rope = scalings.read(config, max_positions)
    if isinstance(rope.scaling, scalings.Yarn):
        # Qwen2.5's cards switch YaRN on beside the original max_position_embeddings.
        stretched = int(rope.scaling.original_max_positions * rope.scaling.factor)
        max_positions = max(max_positions, stretched)
    dtype = config.text("dtype", config.text("torch_dtype", "float32"))
    if dtype not in DTYPES:
        raise config.error("dtype", f"{dtype!r} is not supported; supported: {', '.join(DTYPES)}")
    vocab_size = config.integer("vocab_size")
    eos_token_ids = tuple(
        dict.fromkeys(generation.token_ids("eos_token_id") + config.token_ids("eos_token_id"))
    )
    if any(token_id >= vocab_size for token_id in eos_token_ids):
        raise config.error("eos_token_id", f"{max(eos_token_ids)} is not below vocab_size {vocab_size}")
    return ModelConfig(
        architecture=architecture,
        num_layers=config.integer("num_hidden_layers"),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        vocab_size=vocab_size,
        max_positions=max_positions,
        rope=rope,
        rms_norm_eps=config.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=config.flag("tie_word_embeddings", default=False),
        qkv_bias=traits.qkv_bias,
        output_bias=traits.output_bias,
        mlp_bias=traits.mlp_bias,
        qk_norm=traits.qk_norm,
        sliding_window_tokens=traits.sliding_window_tokens,
        eos_token_ids=eos_token_ids,
        bos_token_id=next(iter(config.token_ids("bos_token_id")), None),
        dtype=dtype,
    )


def _architecture(config: Fields) -> str:
    names = config.values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise config.error("architectures", f"{names!r} names no architecture")
    return names[0]
