"""Predict the parameters, memory and FLOPs of a training run from its settings, before anything is allocated."""

import math
from dataclasses import dataclass, replace

from scratchlm.core.memory import LARGEST_KEPT_BLOCK
from scratchlm.model.config import GPTConfig
from scratchlm.model.empty import empty_weights
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import chunk_length
from scratchlm.training.config import TrainingConfig

FLOAT = 4  # bytes of a float32
HALF = 2  # bytes of a bfloat16
# The allocator keeps freed blocks, in pieces that fit no later request: with glibc real runs reach 1.2 to 1.7 times the
# tensors that come and go (benchmarks/README.md), the larger ones with dropout, whose tensors have many sizes.
# With activation checkpointing or sharding freed blocks are returned: see `freed_memory_kept`.
FRAGMENTS = 0.3


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The memory of a training step by category, each at its largest, and the peak of all together.

    The peak is below the sum: when the loss is computed, all activations exist but hardly any gradient, and at the
    update it is the other way round. With several ranks it is the memory of one, rank 0, which also writes checkpoints.

    Units: bytes.
    """

    weights: int  # in float32; with bf16 also the copies that the products use
    gradients: int
    optimizer: int  # AdamW: two moments of every parameter; Muon: one
    activations: int  # what the forward pass keeps for the backward pass
    logits: int  # scores, probabilities and gradients of the positions that the loss computes at once
    head_gradient: int  # the gradients that exist before the backward pass through the blocks
    # what exists only while one block is passed backward: gradients, and activations that are computed again
    workspace: int
    allocator: int  # freed memory that the allocator holds in pieces
    update: int  # the working copies of the optimizer's update and of the embedding's gradient
    checkpoint: int  # the copy of weights and optimizer that is written while training continues
    cache: int  # keys and values while a text sample is generated
    program: int  # Python, torch and this package
    gathered: int = 0  # sharded: the whole weights of embeddings, head and last block, during both passes
    exchange: int = (
        0  # several ranks: gradients beside those above, when the backward pass ends and they are exchanged
    )
    whole: int = 0  # sharded: what rank 0 gathers for a checkpoint that is written while training waits

    @property
    def peak(self) -> int:
        """The largest sum of what exists at the same time, from the second step on."""
        always = self.program + self.weights + self.optimizer + self.checkpoint
        passes = self.gathered + self.allocator
        at_the_loss = passes + self.activations + self.head_gradient + max(self.logits, self.workspace)
        at_the_exchange = passes + self.gradients + self.exchange if self.exchange else 0
        at_the_update = self.gradients + self.update
        return always + max(at_the_loss, at_the_exchange, at_the_update, self.cache, self.whole)


def n_parameters(config: GPTConfig) -> int:
    """The number of parameters, without allocating them."""
    with empty_weights():
        return GPTModel(config).n_parameters()


def plan_memory(
    config: GPTConfig,
    training: TrainingConfig,
    *,
    program_bytes: int = 0,
    within_documents: bool = False,
    n_ranks: int = 1,
) -> MemoryPlan:
    """The memory of pre-training a whole model with these settings, on windows of the context's length.

    With `n_ranks` processes it is that of one of them, as `training.sharding` says.
    """
    if n_ranks > 1:
        own = settings_of_rank(training, n_ranks)
        alone = plan_memory(config, own, program_bytes=program_bytes, within_documents=within_documents)
        if training.sharding == "fsdp":
            return _sharded(alone, config, training, n_ranks)
        # DDP: each rank has the whole model, and buckets of all gradients, which stay from step to step.
        table = FLOAT * config.vocab_size * config.emb_dim
        n_tables = 2 if config.tie_embeddings else 1  # a shared matrix has two gradients, and their sum
        return replace(alone, head_gradient=alone.gradients + table, exchange=n_tables * table)
    n_all = n_parameters(config)
    n_table = config.vocab_size * config.emb_dim  # the token embedding, and an output head of the same size
    n_muon = _n_in_matrices(config) if training.optimizer == "muon" else 0
    n_tokens = training.batch_size * config.context_length
    is_half = training.precision == "bf16"
    n_copied = _n_in_matrices(config) + n_table if is_half else 0
    n_at_once = chunk_length(n_tokens, config.vocab_size)
    is_in_parts = n_at_once < n_tokens  # the head's gradient is then summed up at the loss
    gradients = FLOAT * n_all
    early = gradients if training.accumulate > 1 else FLOAT * n_table if is_in_parts else 0
    is_checkpointed = training.activation_checkpointing
    activations = n_tokens * bytes_kept_per_token(
        config, is_half=is_half, is_checkpointed=is_checkpointed, is_recomputed=training.recompute_cheap
    )
    bytes_per_logit = 3 * FLOAT if not is_in_parts else FLOAT + HALF if is_half else FLOAT
    if within_documents:  # the mask: one of 0 and -inf for all blocks, or written out a boolean one in each
        bytes_per_pair = config.n_layers if config.attention == "manual" else HALF if is_half else FLOAT
        activations += n_tokens * config.context_length * bytes_per_pair
    logits = bytes_per_logit * n_at_once * config.vocab_size
    wide = 3 * config.feed_forward_dim + 3 * config.emb_dim
    workspace = n_tokens * ((HALF if is_half else FLOAT) * wide + FLOAT * _attention_weights(config))
    workspace += n_tokens * _bytes_kept_by_block(config, is_half=is_half) if is_checkpointed else 0
    # a larger one takes hardly any memory
    is_dense = config.tie_embeddings and FLOAT * n_table <= LARGEST_KEPT_BLOCK
    embedding_gradient = n_table if is_dense else 0
    cache = FLOAT * 2 * config.n_layers * config.context_length * _key_width(config)
    return MemoryPlan(
        weights=FLOAT * n_all + HALF * n_copied,
        gradients=gradients,
        optimizer=FLOAT * (2 * n_all - n_muon),
        activations=activations,
        logits=logits,
        head_gradient=early,
        workspace=workspace,
        allocator=0 if is_checkpointed else round(FRAGMENTS * (activations + early + max(logits, workspace))),
        update=FLOAT * max(2 * n_muon, embedding_gradient),
        checkpoint=FLOAT * (3 * n_all - n_muon) if _copies_checkpoints(training) else 0,
        cache=cache if training.sample_every_steps else 0,
        program=program_bytes,
    )


def settings_of_rank(training: TrainingConfig, n_ranks: int) -> TrainingConfig:
    """The settings with the largest share of the batch that one of the ranks has."""
    return replace(training, batch_size=math.ceil(training.batch_size / n_ranks))


def _sharded(alone: MemoryPlan, config: GPTConfig, training: TrainingConfig, n_ranks: int) -> MemoryPlan:
    """Each rank has a part of weights, gradients and moments, and gathers whole weights to compute with (FSDP2).

    A block's weights are gathered while the next block computes, and its gradients exchanged while the one after
    computes its own. See `ShardedModel` for what stays gathered.
    """
    with empty_weights():
        model = GPTModel(config)
    block = FLOAT * sum(parameter.numel() for parameter in model.trf_blocks[-1].parameters())
    everything = alone.gradients
    root = everything - (config.n_layers - 1) * block
    table = FLOAT * config.vocab_size * config.emb_dim
    # gradients that no rank has given away: of the root, or with accumulation of all that came before
    kept = everything if training.accumulate > 1 else root
    saved = everything + alone.optimizer  # gathered on rank 0
    return replace(
        alone,
        weights=alone.weights - everything + math.ceil(everything / n_ranks),
        gradients=math.ceil(everything / n_ranks),
        optimizer=math.ceil(alone.optimizer / n_ranks),
        workspace=alone.workspace + 3 * block,
        allocator=0,
        update=math.ceil(alone.update / n_ranks),
        cache=alone.cache + everything if training.sample_every_steps else 0,
        gathered=root,
        exchange=kept + (table if config.tie_embeddings else 0) + 2 * block - root // n_ranks,
        whole=0 if alone.checkpoint else saved,
    )


def _copies_checkpoints(training: TrainingConfig) -> bool:
    """Whether a checkpoint is written before the last step: by its interval, or for a new best validation loss."""
    intervals = training.checkpoint_every_steps, training.eval_every_steps
    last = training.max_steps or max(intervals) + 1
    return training.background_checkpoints and any(0 < every < last for every in intervals)


def bytes_kept_per_token(
    config: GPTConfig, *, is_half: bool = False, is_checkpointed: bool = False, is_recomputed: bool = False
) -> int:
    """The activations of one token that the forward pass keeps for the backward pass, over all blocks.

    For GPT-2 without dropout a block keeps 16 E numbers: the inputs and outputs of two norms (4 E), queries, keys,
    values and attention's output (4 E), and the feed-forward network before and after GELU (2 F = 8 E). Without the
    outputs of norms and GELU (`is_recomputed`) 10 E are left. Dropout keeps its masks; attention with dropout keeps
    three matrices of all attention weights. In bfloat16 (`is_half`) only the residual stream, its norms and attention
    weights have 4 bytes, but each product converts its own copy of its input. With activation checkpointing
    (`is_checkpointed`) a block keeps its input only.
    """
    block = (
        FLOAT * config.emb_dim
        if is_checkpointed
        else _bytes_kept_by_block(config, is_half=is_half, is_recomputed=is_recomputed)
    )
    rest = _norm(config) + config.emb_dim * (2 if config.drop_rate_of("drop_rate_emb") > 0 else 1)
    return config.n_layers * block + FLOAT * rest


def _bytes_kept_by_block(config: GPTConfig, *, is_half: bool, is_recomputed: bool = False) -> int:
    """The activations of one token in one block."""
    emb_dim = config.emb_dim
    # products that read a norm's output: in bfloat16 each keeps its own copy
    n_products = 3 + (2 if config.feed_forward == "swiglu" else 1) if is_half else 0 if is_recomputed else 2
    product = n_products * emb_dim + _attention(config) + _feed_forward(config, is_recomputed=is_recomputed)
    if config.drop_rate_of("drop_rate_shortcut") > 0:
        product += 2 * emb_dim
    return FLOAT * (2 * _norm(config) + _attention_weights(config)) + (HALF if is_half else FLOAT) * product


def flops_per_step(config: GPTConfig, training: TrainingConfig) -> int:
    """Floating-point operations of the matrix products of one step: forward, and twice as many backward.

    Two for each entry of a matrix and each token, and 4 T for each channel of attention's queries and keys.
    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
    """
    n_in_products = _n_in_matrices(config) + config.vocab_size * config.emb_dim
    attention = 4 * config.n_layers * config.context_length * config.n_heads * config.head_dim
    n_tokens = training.batch_size * training.accumulate * config.context_length
    return 3 * n_tokens * (2 * n_in_products + attention)


def _norm(config: GPTConfig) -> int:
    """Input and statistics; RMSNorm also keeps the normalised input, written-out LayerNorm two steps more."""
    if config.norm == "rms":
        return 2 * config.emb_dim + 1
    return config.emb_dim + 2 if config.kernels == "torch" else 3 * config.emb_dim + 1


def _attention(config: GPTConfig) -> int:
    """Queries, keys, values and output; groups are repeated only where the weights are kept."""
    width, key_width = config.n_heads * config.head_dim, _key_width(config)
    kept = 4 * width if _attention_weights(config) else 2 * width + 2 * key_width + config.n_heads
    if config.qk_norm:  # norms of queries and keys, and a copy of the output in another order
        n_kv_heads = config.n_kv_heads or config.n_heads
        kept += 3 * width + 2 * key_width + config.n_heads + n_kv_heads
    return kept


def _attention_weights(config: GPTConfig) -> int:
    """The weights of all tokens of a row, in each head; torch's fused kernel without dropout keeps none."""
    has_dropout = config.drop_rate_of("drop_rate_attn") > 0
    if config.attention == "sdpa" and not has_dropout:
        return 0
    return (3 if has_dropout else 1) * config.n_heads * config.context_length


def _feed_forward(config: GPTConfig, *, is_recomputed: bool) -> int:
    """Before and after the activation; SwiGLU has a gate and a product too, written-out GELU its three steps."""
    is_gated = config.feed_forward == "swiglu"
    n_numbers = 4 if is_gated else 2 if config.kernels == "torch" else 5
    n_recomputed = (2 if is_gated else 1) if is_recomputed else 0
    return (n_numbers - n_recomputed) * config.feed_forward_dim


def _key_width(config: GPTConfig) -> int:
    return (config.n_kv_heads or config.n_heads) * config.head_dim


def _n_in_matrices(config: GPTConfig) -> int:
    """The number of entries of the matrices in the blocks."""
    with empty_weights():
        blocks = GPTModel(config).trf_blocks
    return sum(parameter.numel() for parameter in blocks.parameters() if parameter.ndim == 2)
