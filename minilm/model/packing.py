"""Several documents in one row: each begins at position 0 and sees no token of another.

Shapes: b rows, t tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.model.kv_cache import Positions
from minilm.model.rope import rotation


def packed_positions(index: Tensor, config: ModelConfig) -> Positions:
    """Those of rows whose tokens stand at ``index``, (b, t), in their own documents."""
    t = index.shape[1]
    angles = None
    if config.position == "rope":
        cosine, sine = rotation(t, config, index.device)
        angles = cosine[index][:, None], sine[index][:, None]  # b 1 t rotary_dim/2
    place = torch.arange(t, device=index.device)
    distance = place[:, None] - place  # t t, from a query back to a key
    reach = index if not config.sliding_window else index.clamp(max=config.sliding_window - 1)
    visible = (distance >= 0) & (distance <= reach[:, :, None])  # b t t
    return Positions(
        index=index,
        rotation=angles,
        slots=slice(0),
        used=0,
        first=False,
        mask=visible[:, None],
        window=config.sliding_window,
    )
