"""The components that a declared tensor can belong to; reports print these texts."""

from __future__ import annotations

# In the order of the forward pass.
TOKEN_EMBEDDING = "token embedding"
POSITION_EMBEDDING = "position embedding"
TOKEN_TYPE_EMBEDDING = "token type embedding"
NGRAM_EMBEDDING = "n-gram embedding"
PATCH_EMBEDDING = "patch embedding"
PATCHER = "patcher"  # a model that says where patches of bytes end
FEATURE_EXTRACTOR = "waveform convolutions"
POSITIONAL_CONVOLUTION = "positional convolution"
EMBEDDING_NORM = "embedding norm"
EMBEDDING_PROJECTION = "embedding projection"
PER_LAYER_EMBEDDING = "per-layer embedding"
PER_LAYER_INPUT = "per-layer input"
RESIDUAL_STREAMS = "residual streams"
CONVOLUTION = "causal convolution"
CONVOLUTION_MODULE = "convolution module"
ATTENTION_NORM = "attention norm"
ATTENTION_QUERY = "attention query"
ATTENTION_KEY = "attention key"
ATTENTION_VALUE = "attention value"
ATTENTION_QUERY_KEY_VALUE = "attention query+key+value"
# Multi-head latent attention: projections to the latent, and from it.
ATTENTION_QUERY_LATENT = "attention query latent"
ATTENTION_KEY_VALUE_LATENT = "attention key+value latent"
ATTENTION_KEY_VALUE = "attention key+value"
ATTENTION_QK_NORM = "attention query/key norm"
ATTENTION_LATENT_NORM = "attention latent norm"
ATTENTION_SINKS = "attention sinks"
ATTENTION_COMPRESSOR = "attention compressor"
ATTENTION_INDEXER = "attention indexer"
ATTENTION_GATE = "attention gate"
ATTENTION_OUTPUT = "attention output"
ATTENTION_OUTPUT_NORM = "attention output norm"
CROSS_ATTENTION = "cross-attention"
ENCODER = "encoder"
# A recurrent mixer in the place of attention: state space, linear attention, gated recurrence.
MIXER_INPUT = "mixer input"
MIXER_GATES = "mixer gates"
MIXER_DECAY = "mixer decay"
MIXER_NORM = "mixer norm"
MIXER_OUTPUT = "mixer output"
FEED_FORWARD_NORM = "feed-forward norm"
FEED_FORWARD_GATE = "feed-forward gate"
FEED_FORWARD_UP = "feed-forward up"
FEED_FORWARD_GATE_UP = "feed-forward gate+up"
FEED_FORWARD_DOWN = "feed-forward down"
FEED_FORWARD_OUTPUT_NORM = "feed-forward output norm"
ROUTER = "router"
EXPERTS_GATE = "experts gate"
EXPERTS_UP = "experts up"
EXPERTS_GATE_UP = "experts gate+up"
EXPERTS_DOWN = "experts down"
SHARED_EXPERT = "shared expert"
SHARED_EXPERT_GATE = "shared expert gate"
# Of convolutional networks.
STEM = "stem"
CONVOLUTIONS = "convolution"
DEPTHWISE_CONVOLUTIONS = "depthwise convolution"
CONVOLUTION_NORM = "convolution norm"
SHORTCUT = "shortcut"
DOWNSAMPLING = "downsampling"
SQUEEZE_EXCITATION = "squeeze and excitation"
FINAL_NORM = "final norm"
LM_HEAD = "LM head"
ADAPTER = "adapter"
TRANSDUCER = "prediction network"
QUANTIZER = "quantizer"
POOLER = "pooler"
CLASSIFIER = "classifier"
AUDIO = "audio encoder and projector"
PROJECTOR = "projector"
VISION = "vision tower and projector"
TALKER = "talker"
VOCODER = "vocoder"
SENTENCE_PROJECTION = "sentence projection"
MTP = "multi-token prediction"

HEADS = (LM_HEAD, CLASSIFIER)
EMBEDDINGS = (
    TOKEN_EMBEDDING,
    POSITION_EMBEDDING,
    TOKEN_TYPE_EMBEDDING,
    NGRAM_EMBEDDING,
    PER_LAYER_EMBEDDING,
)
