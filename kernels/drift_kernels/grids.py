"""How many programs a launch gets, from the SM count of its lane: the sizes that every Triton launcher asks for.

Drift runs prefill and decode side by side on disjoint SMs. A kernel that sized its grid by the whole device
would take turns on its few SMs and lose time in the tail, so every size here is a pure function of `lane_sms`
and the shapes.
"""

# Two decode programs fit on an SM of sm_90 by their shared memory (105 KB each), and one hides the other's
# start and end. Estimate, not yet measured on a GPU.
DECODE_PROGRAMS_PER_SM = 2

# One prefill program fits by its registers; four in turn let an SM that had short tiles take over from one
# that had long ones. Estimate, not yet measured on a GPU.
PREFILL_PROGRAMS_PER_SM = 4

# Memory-bound row kernels: four programs of four warps keep about 32 KB of loads in flight per SM, which is
# what latency (~700 ns) times bandwidth per SM (~36 GB/s at 4.8 TB/s over 132 SMs) asks for. Estimate, not
# yet measured.
ROW_PROGRAMS_PER_SM = 4

# Below this a split's fixed cost (its partial result written, read and merged) outweighs its reading of KV:
# 256 tokens of 128 bf16 dimensions are 128 KB, about 2 us at one SM's bandwidth. Estimate, not yet measured
# on a GPU.
MIN_SPLIT_TOKENS = 256

# The merge kernel holds one partial result per split in registers.
MAX_DECODE_SPLITS = 64


def rows(lane_sms: int, work_items: int) -> int:
    """Programs of an element-wise kernel over `work_items` independent items."""
    return max(1, min(work_items, ROW_PROGRAMS_PER_SM * lane_sms))


def prefill(lane_sms: int, tiles: int) -> int:
    """Programs of the prefill kernel over `tiles` independent tiles."""
    return max(1, min(tiles, PREFILL_PROGRAMS_PER_SM * lane_sms))


def decode(lane_sms: int, parts: int) -> int:
    """Programs of the decode kernel over `parts` parts of contexts."""
    return max(1, min(parts, DECODE_PROGRAMS_PER_SM * lane_sms))


def decode_splits(lane_sms: int, sequences: int, kv_heads: int, max_context_tokens: int) -> int:
    """Parts per context, so that sequences x kv heads x parts about fill the lane, each part worth its overhead.

    Rounded down to a power of two: few distinct values mean few compiled merge kernels, and a captured graph
    stays valid while contexts grow, since only the bound on the context enters.
    """
    wanted = DECODE_PROGRAMS_PER_SM * lane_sms // max(1, sequences * kv_heads)
    worthwhile = -(-max_context_tokens // MIN_SPLIT_TOKENS)
    splits = max(1, min(wanted, worthwhile, MAX_DECODE_SPLITS))
    return 1 << (splits.bit_length() - 1)
