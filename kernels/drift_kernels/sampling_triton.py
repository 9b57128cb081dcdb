"""Triton kernels of `sampling.sample`: one changes the logits, one chooses a token per row.

The first runs over all rows and blocks of the vocabulary at once and leaves tempered logits. In the second
one program owns a row and walks over it: once for the maximum, then, only for rows that ask, to find each
filter's threshold by bisection, and at last along the cumulative mass up to the drawn token. Nothing is
sorted; the row stays in L2.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

from drift_kernels import grids
from drift_kernels.sampling import SamplingInputs

# Elements per turn: eight per thread on 4 warps where many programs share the work, and on 16 warps where one
# program has a row for itself. Estimates, not yet measured on a GPU.
ADJUST_BLOCK = 1024
CHOOSE_BLOCK = 4096


@triton.jit(do_not_specialize=["blocks"])
def adjust_kernel(
    logits_ptr,
    temperature_ptr,
    presence_ptr,
    frequency_ptr,
    repetition_ptr,
    counts_ptr,
    prompt_mask_ptr,
    bias_ptr,
    bitmask_ptr,
    tempered_ptr,
    blocks,
    VOCABULARY: tl.constexpr,
    HAS_PENALTIES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_BITMASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    ROW_BLOCKS: tl.constexpr = (VOCABULARY + BLOCK - 1) // BLOCK
    WORDS: tl.constexpr = (VOCABULARY + 31) // 32
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        b = tl.cast(block // ROW_BLOCKS, tl.int64)
        token = block % ROW_BLOCKS * BLOCK + tl.arange(0, BLOCK)
        inside = token < VOCABULARY
        at = b * VOCABULARY + token
        logit = tl.load(logits_ptr + at, mask=inside, other=float("-inf"))
        if HAS_PENALTIES:
            count = tl.load(counts_ptr + at, mask=inside, other=0)
            in_prompt = tl.load(prompt_mask_ptr + at, mask=inside, other=0) != 0
            repetition = tl.load(repetition_ptr + b)
            repeated = tl.where(logit > 0, tl.div_rn(logit, repetition), logit * repetition)
            logit = tl.where(in_prompt | (count > 0), repeated, logit)
            logit -= tl.load(frequency_ptr + b) * count.to(tl.float32)
            logit -= tl.load(presence_ptr + b) * (count > 0).to(tl.float32)
        if HAS_BIAS:
            logit += tl.load(bias_ptr + at, mask=inside, other=0.0)
        if HAS_BITMASK:
            word = tl.load(bitmask_ptr + b * WORDS + token // 32, mask=inside, other=0)
            logit = tl.where((word >> (token % 32)) & 1 != 0, logit, float("-inf"))
        temperature = tl.load(temperature_ptr + b)
        logit = tl.div_rn(logit, tl.where(temperature > 0, temperature, 1.0))
        tl.store(tempered_ptr + at, logit, mask=inside)


@triton.jit
def ordered(value):
    """An int32 for every float32, in the floats' order; minus infinity is not the smallest int32."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def threshold(
    row_ptr,
    floor,
    largest_key,
    largest,
    bound,
    BY_MASS: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The least key t, not below `floor`, such that the tokens above t number (or weigh) less than `bound`.

    Every token from t on is to be kept. Bisection over the keys; after each probe both ends move to the next
    token's key, so it ends when the two ends are neighbours in the row, after about 20 probes for 100,000
    tokens, at most 33.
    """
    low = floor - 1  # fails, or is not allowed
    high = largest_key  # nothing is above the largest
    while low + 1 < high:
        probe = (low >> 1) + (high >> 1) + (low & high & 1)  # their mean, without overflow
        above = tl.full([], 0.0, tl.float32)
        next_above = high
        next_below = low + 1
        for start in range(0, VOCABULARY, BLOCK):
            token = start + tl.arange(0, BLOCK)
            value = tl.load(row_ptr + token, mask=token < VOCABULARY, other=float("-inf"))
            key = ordered(value)
            is_above = (key > probe) & (token < VOCABULARY)
            if BY_MASS:
                above += tl.sum(tl.where(is_above, tl.exp(value - largest), 0.0), axis=0)
            else:
                above += tl.sum(is_above.to(tl.float32), axis=0)
            next_above = tl.minimum(next_above, tl.min(tl.where(is_above, key, high), axis=0))
            next_below = tl.maximum(next_below, tl.max(tl.where(is_above, low + 1, key), axis=0))
        if above < bound:
            high = tl.minimum(next_below, probe)
        else:
            low = next_above - 1
    return high


@triton.jit
def kept_mass(value, token, floor, largest, VOCABULARY: tl.constexpr):
    """Unnormalised probability of the tokens whose key reaches `floor`, else 0."""
    is_kept = (ordered(value) >= floor) & (token < VOCABULARY)
    return tl.where(is_kept, tl.exp(value - largest), 0.0)


@triton.jit
def total_mass(row_ptr, floor, largest, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.full([], 0.0, tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        token = start + tl.arange(0, BLOCK)
        value = tl.load(row_ptr + token, mask=token < VOCABULARY, other=float("-inf"))
        total += tl.sum(kept_mass(value, token, floor, largest, VOCABULARY), axis=0)
    return total


@triton.jit(do_not_specialize=["rows"])
def choose_kernel(
    tempered_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    uniform_ptr,
    token_ids_ptr,
    rows,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    for b in range(tl.program_id(0), rows, tl.num_programs(0)):
        row_ptr = tempered_ptr + tl.cast(b, tl.int64) * VOCABULARY
        largest = tl.full([], float("-inf"), tl.float32)
        smallest = tl.full([], float("inf"), tl.float32)
        chosen = tl.full([], 0, tl.int32)
        for start in range(0, VOCABULARY, BLOCK):
            token = start + tl.arange(0, BLOCK)
            value = tl.load(row_ptr + token, mask=token < VOCABULARY, other=float("-inf"))
            block_largest = tl.max(value, axis=0)
            if block_largest > largest:
                largest = block_largest
                chosen = (start + tl.argmax(value, axis=0)).to(tl.int32)
            smallest = tl.minimum(
                smallest, tl.min(tl.where(value > float("-inf"), value, float("inf")), axis=0)
            )

        if tl.load(temperature_ptr + b) > 0:
            largest_key = ordered(largest)
            floor = ordered(smallest)  # the masked tokens are out
            top_k = tl.load(top_k_ptr + b)
            if (top_k > 0) & (top_k < VOCABULARY):
                floor = threshold(
                    row_ptr, floor, largest_key, largest, top_k.to(tl.float32), False, VOCABULARY, BLOCK
                )
            top_p = tl.load(top_p_ptr + b)
            total = total_mass(row_ptr, floor, largest, VOCABULARY, BLOCK)
            if top_p < 1:
                floor = threshold(
                    row_ptr, floor, largest_key, largest, top_p * total, True, VOCABULARY, BLOCK
                )
            min_p = tl.load(min_p_ptr + b)
            if min_p > 0:
                floor = tl.maximum(floor, ordered(largest + tl.log(min_p)))
            if (top_p < 1) | (min_p > 0):
                total = total_mass(row_ptr, floor, largest, VOCABULARY, BLOCK)

            target = tl.load(uniform_ptr + b) * total
            passed = tl.full([], 0.0, tl.float32)
            last = chosen  # the last token with mass so far: the draw if rounding hides the passing
            found = tl.full([], VOCABULARY, tl.int32)
            start = tl.full([], 0, tl.int32)
            while (start < VOCABULARY) & (found == VOCABULARY):
                token = start + tl.arange(0, BLOCK)
                value = tl.load(row_ptr + token, mask=token < VOCABULARY, other=float("-inf"))
                mass = kept_mass(value, token, floor, largest, VOCABULARY)
                cumulative = passed + tl.cumsum(mass, axis=0)
                found = tl.min(tl.where((cumulative > target) & (mass > 0), token, VOCABULARY), axis=0)
                last = tl.maximum(tl.where(start == 0, 0, last), tl.max(tl.where(mass > 0, token, 0), axis=0))
                passed += tl.sum(mass, axis=0)
                start += BLOCK
            chosen = tl.where(found < VOCABULARY, found, last)
        tl.store(token_ids_ptr + b, chosen.to(tl.int64))


def draw(logits_BV: torch.Tensor, inputs: SamplingInputs, lane_sms: int) -> torch.Tensor:
    """Token ids [B]. Contracts are the launcher's; see there."""
    rows, vocabulary = logits_BV.shape
    tempered_BV = torch.empty_like(logits_BV)
    token_ids_B = torch.empty(rows, dtype=torch.int64, device=logits_BV.device)
    blocks = rows * triton.cdiv(vocabulary, ADJUST_BLOCK)
    adjust_kernel[(grids.rows(lane_sms, blocks),)](
        logits_BV,
        inputs.temperature_B,
        inputs.presence_B,
        inputs.frequency_B,
        inputs.repetition_B,
        logits_BV if inputs.output_counts_BV is None else inputs.output_counts_BV,
        logits_BV if inputs.prompt_mask_BV is None else inputs.prompt_mask_BV,
        logits_BV if inputs.bias_BV is None else inputs.bias_BV,
        logits_BV if inputs.bitmask_BW is None else inputs.bitmask_BW,
        tempered_BV,
        blocks,
        VOCABULARY=vocabulary,
        HAS_PENALTIES=inputs.output_counts_BV is not None,
        HAS_BIAS=inputs.bias_BV is not None,
        HAS_BITMASK=inputs.bitmask_BW is not None,
        BLOCK=ADJUST_BLOCK,
    )
    choose_kernel[(grids.rows(lane_sms, rows),)](
        tempered_BV,
        inputs.temperature_B,
        inputs.top_k_B,
        inputs.top_p_B,
        inputs.min_p_B,
        inputs.uniform_B,
        token_ids_B,
        rows,
        VOCABULARY=vocabulary,
        BLOCK=CHOOSE_BLOCK,
        num_warps=16,
        maxnreg=128,  # what 512 threads may have; left alone, ptxas takes 64 and spills
    )
    return token_ids_B
