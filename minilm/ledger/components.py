"""What a tensor can be part of. Families say `components.ATTENTION_QUERY`; reports print the text."""

from __future__ import annotations

# In the order in which a token meets them.
TOKEN_EMBEDDING = "token embedding"
POSITION_EMBEDDING = "position embedding"
ATTENTION_NORM = "attention norm"
ATTENTION_QUERY = "attention query"
ATTENTION_KEY = "attention key"
ATTENTION_VALUE = "attention value"
ATTENTION_QUERY_KEY_VALUE = "attention query+key+value"
ATTENTION_QK_NORM = "attention query/key norm"
ATTENTION_OUTPUT = "attention output"
FEED_FORWARD_NORM = "feed-forward norm"
FEED_FORWARD_GATE = "feed-forward gate"
FEED_FORWARD_UP = "feed-forward up"
FEED_FORWARD_DOWN = "feed-forward down"
FINAL_NORM = "final norm"
LM_HEAD = "LM head"

EMBEDDINGS = (TOKEN_EMBEDDING, POSITION_EMBEDDING)
