"""From logits to the next token of every row: penalties, bias, grammar mask, temperature, top-k, top-p, min-p, draw.

Last operation of a step; its token ids go back into the next step and out to the requests.

A row's draw takes one uniform number made by the host from the request's seed and the position, and inverts
the cumulative distribution over the kept tokens in order of the vocabulary. So a resumed or re-batched
request draws the tokens that it would have drawn undisturbed.

Filters are thresholds on the tempered logit: each keeps the tokens at or above some value, so none needs an
order among equal logits and none needs the vocabulary sorted.

B rows, V vocabulary, W = ceil(V / 32) mask words, K log probabilities per row, C candidates.
"""

from dataclasses import dataclass

import torch

from drift_kernels import contracts, dispatch


@dataclass(frozen=True, eq=False)
class SamplingInputs:
    """What every row asks for; all tensors contiguous, on the logits' device."""

    temperature_B: torch.Tensor  # float32; 0 is greedy
    top_k_B: torch.Tensor  # int32; keep the k likeliest, 0 is off
    top_p_B: torch.Tensor  # float32 in (0, 1]; keep tokens while the likelier ones hold less than p; 1 is off
    min_p_B: (
        torch.Tensor
    )  # float32 in [0, 1); keep tokens at least this times as likely as the likeliest; 0 is off
    presence_B: torch.Tensor  # float32; subtracted once from a token that was generated before
    frequency_B: torch.Tensor  # float32; subtracted per earlier generation of a token
    repetition_B: (
        torch.Tensor
    )  # float32 > 0; divides positive, multiplies negative logits of seen tokens; 1 is off
    uniform_B: torch.Tensor  # float32 in [0, 1)
    output_counts_BV: torch.Tensor | None = (
        None  # int32: how often each token was generated; None: no penalties
    )
    prompt_mask_BV: torch.Tensor | None = None  # bool: tokens of the prompt; comes with output_counts_BV
    bias_BV: torch.Tensor | None = None  # float32, added after the penalties
    bitmask_BW: torch.Tensor | None = (
        None  # int32, bit i of word w allows token 32 w + i; each row allows some token
    )
    num_logprobs: int = -1  # -1: none; k: of the drawn token and of the k likeliest


@dataclass(frozen=True, eq=False)
class Sampled:
    """The drawn tokens; log probabilities are of the raw logits, before any change that a request asked for."""

    token_ids_B: torch.Tensor  # int64
    logprobs_B: torch.Tensor | None = None  # float32, of the drawn tokens
    top_ids_BK: torch.Tensor | None = None  # int64, likeliest first; None unless num_logprobs > 0
    top_logprobs_BK: torch.Tensor | None = None  # float32


def sample(logits_BV: torch.Tensor, inputs: SamplingInputs, *, lane_sms: int, impl: str = "auto") -> Sampled:
    """Draws one token per row of `logits_BV` (float32, left unchanged).

    Order: penalties, bias, mask; the likeliest token if the temperature is 0, else temperature, top-k, top-p
    (of what top-k kept), min-p, draw. Among equal largest logits greedy takes the smallest token id.
    """
    _check(logits_BV, inputs)
    chosen = dispatch.choose(impl, logits_BV)
    if logits_BV.shape[0] == 0:
        token_ids_B = torch.empty(0, dtype=torch.int64, device=logits_BV.device)
    elif chosen == "triton":
        from drift_kernels import sampling_triton

        token_ids_B = sampling_triton.draw(logits_BV, inputs, lane_sms)
    elif chosen == "cpu":
        from drift_kernels import sampling_cpu

        token_ids_B = sampling_cpu.draw(logits_BV, inputs)
    else:
        token_ids_B = reference(logits_BV, inputs)
    return _with_logprobs(logits_BV, token_ids_B, inputs.num_logprobs)


def likeliest(logits_BV: torch.Tensor) -> Sampled:
    """What `sample` draws where every row is greedy and asks for nothing else, without preparing its inputs."""
    contracts.tensor("logits", logits_BV, tuple(logits_BV.shape), torch.float32)
    if logits_BV.device.type == "cpu":
        from drift_kernels import sampling_cpu

        return Sampled(sampling_cpu.argmax(logits_BV))
    return Sampled(logits_BV.argmax(dim=-1))


def _check(logits_BV: torch.Tensor, inputs: SamplingInputs) -> None:
    rows, vocabulary = logits_BV.shape
    contracts.tensor("logits", logits_BV, (rows, vocabulary), torch.float32)
    for name in ("temperature", "top_p", "min_p", "presence", "frequency", "repetition", "uniform"):
        contracts.tensor(name, getattr(inputs, f"{name}_B"), (rows,), torch.float32)
    contracts.tensor("top_k", inputs.top_k_B, (rows,), torch.int32)
    assert (inputs.output_counts_BV is None) == (inputs.prompt_mask_BV is None), (
        "counts, prompt mask: both or none"
    )
    for name, dtype in (("output_counts", torch.int32), ("prompt_mask", torch.bool), ("bias", torch.float32)):
        value_BV = getattr(inputs, f"{name}_BV")
        if value_BV is not None:
            contracts.tensor(name, value_BV, (rows, vocabulary), dtype)
    if inputs.bitmask_BW is not None:
        contracts.tensor("bitmask", inputs.bitmask_BW, (rows, -(-vocabulary // 32)), torch.int32)
    assert -1 <= inputs.num_logprobs <= vocabulary, (
        f"{inputs.num_logprobs} log probabilities of {vocabulary} tokens"
    )


def _with_logprobs(logits_BV: torch.Tensor, token_ids_B: torch.Tensor, num_logprobs: int) -> Sampled:
    if num_logprobs < 0:
        return Sampled(token_ids_B)
    total_B1 = logits_BV.logsumexp(dim=-1, keepdim=True)
    logprobs_B = (logits_BV.gather(1, token_ids_B.unsqueeze(1)) - total_B1).squeeze(1)
    if num_logprobs == 0:
        return Sampled(token_ids_B, logprobs_B)
    top = logits_BV.topk(num_logprobs, dim=-1)
    return Sampled(token_ids_B, logprobs_B, top.indices, top.values - total_B1)


def adjust(logits_BV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    """Logits after penalties, bias and mask; the same tensor if no row asks for any."""
    if inputs.output_counts_BV is not None and inputs.prompt_mask_BV is not None:
        counts_BV, repetition_B1 = inputs.output_counts_BV, inputs.repetition_B.unsqueeze(1)
        seen_BV = inputs.prompt_mask_BV | (counts_BV > 0)
        repeated_BV = torch.where(logits_BV > 0, logits_BV / repetition_B1, logits_BV * repetition_B1)
        logits_BV = torch.where(seen_BV, repeated_BV, logits_BV)
        logits_BV = logits_BV - inputs.frequency_B.unsqueeze(1) * counts_BV
        logits_BV = logits_BV - inputs.presence_B.unsqueeze(1) * (counts_BV > 0)
    if inputs.bias_BV is not None:
        logits_BV = logits_BV + inputs.bias_BV
    if inputs.bitmask_BW is not None:
        bit_32 = torch.arange(32, device=logits_BV.device, dtype=torch.int32)
        allowed_BV = (inputs.bitmask_BW.unsqueeze(2) >> bit_32 & 1).flatten(1)[:, : logits_BV.shape[1]].bool()
        logits_BV = logits_BV.masked_fill(~allowed_BV, float("-inf"))
    return logits_BV


def reference(logits_BV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    """The definition: every row sorted, every probability in float64. Returns the token ids."""
    adjusted_BV = adjust(logits_BV, inputs)
    token_ids_B = adjusted_BV.argmax(dim=-1)
    for b, temperature in enumerate(inputs.temperature_B.tolist()):
        if temperature > 0:
            kept_V = kept(
                adjusted_BV[b] / temperature,
                top_k=int(inputs.top_k_B[b]),
                top_p=float(inputs.top_p_B[b]),
                min_p=float(inputs.min_p_B[b]),
            )
            mass_V = torch.where(kept_V > float("-inf"), kept_V.double().softmax(0), 0.0).cumsum(0)
            target = inputs.uniform_B[b].double() * mass_V[-1]
            token_ids_B[b] = (
                (mass_V > target).int().argmax()
            )  # the first token whose cumulative mass passes it
    return token_ids_B


def kept(tempered_V: torch.Tensor, *, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """Tempered logits of one row in float32 with all that the filters drop set to minus infinity."""
    ordered_V = tempered_V.sort(descending=True).values
    if 0 < top_k < len(ordered_V):
        tempered_V = tempered_V.masked_fill(tempered_V < ordered_V[top_k - 1], float("-inf"))
        ordered_V = ordered_V.masked_fill(ordered_V < ordered_V[top_k - 1], float("-inf"))
    if top_p < 1:
        probability_V = ordered_V.double().softmax(0)
        likelier_V = probability_V.cumsum(0) - probability_V
        smallest = ordered_V[max(0, int((likelier_V < top_p).sum()) - 1)]
        tempered_V = tempered_V.masked_fill(tempered_V < smallest, float("-inf"))
    if min_p > 0:
        tempered_V = tempered_V.masked_fill(
            tempered_V < ordered_V[0] + torch.tensor(min_p).log(), float("-inf")
        )
    return tempered_V
