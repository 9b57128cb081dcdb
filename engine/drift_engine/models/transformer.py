"""The decoder's forward over packed tokens and paged KV, callable a range of layers at a time.

    x, residual = model.embed(inputs), None
    x, residual = model.layers(x, residual, inputs, kv, 0, model.config.num_layers, lane_sms=sms)
    logits = model.logits(x, residual, rows, lane_sms=sms)

A prefill may be cut at any layer: the pair (x, residual) and the KV store are all its state, and the cut changes no
bit of the result. All arithmetic is in `drift_kernels`; `lane_sms` is what its kernels may use of the device.
"""

from __future__ import annotations

import torch

from drift_engine.models import rope
from drift_engine.models.config import ModelConfig
from drift_engine.models.inputs import ForwardInputs
from drift_engine.models.kv_store import KvStore
from drift_engine.models.weights import LayerWeights, Weights
from drift_kernels import activations, attention, linear, norms, rotary

# T packed tokens, B rows, E hidden, X query + key + value width, N query heads, H head dim, V vocabulary


class Transformer:
    """A model ready to run. Immutable once made, so lanes may share it."""

    def __init__(self, config: ModelConfig, weights: Weights, *, max_context_tokens: int) -> None:
        config.check_context(max_context_tokens)
        self.config = config
        self.weights = weights
        self.device = weights.embedding_VE.device
        self.dtype = weights.embedding_VE.dtype
        self.max_context_tokens = max_context_tokens
        self._cos_sin_LH = rope.cos_sin_table(config.rope, config.head_dim, max_context_tokens, self.device)
        self._scale = config.head_dim**-0.5

    @torch.inference_mode()
    def embed(self, inputs: ForwardInputs) -> torch.Tensor:
        """x_TE, the state before the first layer."""
        return self.weights.embedding_VE[inputs.token_ids_T]

    @torch.inference_mode()
    def layers(
        self,
        x_TE: torch.Tensor,
        residual_TE: torch.Tensor | None,
        inputs: ForwardInputs,
        kv: KvStore,
        start: int,
        stop: int,
        *,
        lane_sms: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Runs layers [start, stop) and writes their keys and values to `inputs.slots_T`.

        `residual_TE` is None before layer 0 and from then on what the previous call returned.
        """
        assert 0 <= start <= stop <= self.config.num_layers, (start, stop)
        assert (residual_TE is None) == (start == 0), start
        eps = self.config.rms_norm_eps
        for index in range(start, stop):
            layer = self.weights.layers[index]
            x_TE, residual_TE = norms.add_rms_norm(
                x_TE, residual_TE, layer.input_norm_E, eps, lane_sms=lane_sms
            )
            attended_TY = self._attention(x_TE, layer, inputs, kv.key[index], kv.value[index], lane_sms)
            x_TE = linear.linear(attended_TY, layer.output_EY, layer.output_bias_E, lane_sms=lane_sms)
            x_TE, residual_TE = norms.add_rms_norm(
                x_TE, residual_TE, layer.mlp_norm_E, eps, lane_sms=lane_sms
            )
            gate_up_T2F = linear.linear(x_TE, layer.gate_up_2FE, layer.gate_up_bias_2F, lane_sms=lane_sms)
            hidden_TF = activations.swiglu(gate_up_T2F, lane_sms=lane_sms)
            x_TE = linear.linear(hidden_TF, layer.down_EF, layer.down_bias_E, lane_sms=lane_sms)
        return x_TE, residual_TE

    @torch.inference_mode()
    def logits(
        self, x_TE: torch.Tensor, residual_TE: torch.Tensor | None, rows_B: torch.Tensor, *, lane_sms: int
    ) -> torch.Tensor:
        """logits_BV, float32, of the packed tokens `rows_B` (int64), after the last layer."""
        assert residual_TE is not None, "logits need the state after the last layer"
        normed_BE, _ = norms.add_rms_norm(
            x_TE[rows_B],
            residual_TE[rows_B],
            self.weights.final_norm_E,
            self.config.rms_norm_eps,
            lane_sms=lane_sms,
        )
        return linear.linear(normed_BE, self.weights.head_VE, None, lane_sms=lane_sms).float()

    def _attention(
        self,
        x_TE: torch.Tensor,
        layer: LayerWeights,
        inputs: ForwardInputs,
        key_PKSH: torch.Tensor,
        value_PKSH: torch.Tensor,
        lane_sms: int,
    ) -> torch.Tensor:
        """attended_TY, the heads' outputs side by side: decode rows first, then the prefill chunks."""
        config = self.config
        q_TNH = rotary.rotate_and_store(
            linear.linear(x_TE, layer.qkv_XE, layer.qkv_bias_X, lane_sms=lane_sms),
            layer.q_norm_H,
            layer.k_norm_H,
            self._cos_sin_LH,
            inputs.positions_T,
            inputs.slots_T,
            key_PKSH,
            value_PKSH,
            config.num_heads,
            config.num_kv_heads,
            config.rms_norm_eps,
            lane_sms=lane_sms,
        )
        parts = []
        if inputs.num_decode:
            decoded_BNH = attention.decode(
                q_TNH[: inputs.num_decode],
                key_PKSH,
                value_PKSH,
                inputs.decode_context_lens_B,
                inputs.decode_page_table_BM,
                max_context_tokens=inputs.max_decode_context_tokens,
                scale=self._scale,
                lane_sms=lane_sms,
            )
            parts.append(decoded_BNH)
        if inputs.num_prefill:
            prefilled_TNH = attention.prefill(
                q_TNH[inputs.num_decode :],
                key_PKSH,
                value_PKSH,
                inputs.prefill_query_starts_B1,
                inputs.prefill_context_lens_B,
                inputs.prefill_page_table_BM,
                max_query_tokens=inputs.max_query_tokens,
                max_context_tokens=inputs.max_prefill_context_tokens,
                scale=self._scale,
                lane_sms=lane_sms,
            )
            parts.append(prefilled_TNH)
        attended_TNH = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended_TNH.reshape(-1, config.q_size)
