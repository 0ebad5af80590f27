"""SigLIP's towers with more inside: MiniCPM-V's merger of windows, Granite Docling's connector; and Janus'.

Names, shapes and defaults: huggingface/transformers `models/{minicpmv4_6,minicpm_ocr,granite_docling,janus}`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from minilm.architectures.config_fields import (
    Config,
    flag,
    layer_list,
    scaled_size,
    sides,
    size,
)
from minilm.architectures.vision_tower import (
    F,
    Part,
    W,
    Y,
    matrix,
    projector,
    siglip_part,
    vector,
    without_bias,
)
from minilm.ledger.layout import Tensors
from minilm.ledger.symbols import as_polynomial


def minicpm(config: Config, name: str) -> Part:
    """Behind one of the layers the patches of a window become one."""
    part = siglip_part(config, name, patch=16)
    merger, window = f"{name}.vit_merger", prod(sides(config, "window_kernel_size", 2))
    tensors = (
        *(
            t
            for n in ("q_proj", "k_proj", "v_proj", "out_proj")
            for t in matrix(f"{merger}.self_attn.{n}", (W, W))
        ),
        *vector(f"{merger}.layer_norm1", W),
        *vector(f"{merger}.pre_norm", window * W),
        *matrix(f"{merger}.linear_1", (window * F, window * W)),
        *matrix(f"{merger}.linear_2", (W, window * F)),
    )
    return part._replace(tensors=(*part.tensors, *tensors))


def janus(config: Config, name: str) -> Part:
    """Its feed-forward is a multiple of the width; queries and keys may have norms."""
    width = size(config, "hidden_size", 1024)
    inner = scaled_size(config, "mlp_ratio", 4.0, width)
    fields = {"num_hidden_layers": 24, **config, "hidden_size": width, "intermediate_size": inner}
    part = siglip_part(fields, name, patch=16, image=384)
    attention = f"{name}.encoder.layers.{{i}}.self_attn"
    bare = () if flag(config, "attention_bias", True) else ("q", "k", "v")
    without = tuple(f"{attention}.{n}_proj.bias" for n in bare)
    kept = (
        replace(t, name=t.name.replace(".out_proj.", ".projection_layer."))
        for t in part.tensors
        if t.name not in without
    )
    norms = (t for n in "qk" for t in vector(f"{attention}.{n}_norm", W, Y))
    has_norms = flag(config, "use_qk_norm", False)
    return part._replace(tensors=(*kept, *(norms if has_norms else ())))


def granite_docling(config: Config, name: str) -> Part:
    """With a projection and mergers of several layers' outputs for each of two numbers of tokens."""
    part = siglip_part(config, name, patch=16, image=512)
    connector, scale = f"{name}.connector", size(config, "scale_factor", 4)
    outputs = as_polynomial(size(config, "out_hidden_size", 1024))
    chosen = len(layer_list(config, "deepstack_visual_indexes", (3, 7, 10)))

    def path(prefix: str, factor: int) -> Tensors:
        merged = factor**2 * W
        mergers = (f"{prefix}.deepstack_mergers.{number}" for number in range(chosen))
        return (
            without_bias(f"{prefix}.projection", outputs, merged),
            *(
                t
                for merger in mergers
                for t in (
                    *vector(f"{merger}.layer_norm", merged),
                    *matrix(f"{merger}.linear_1", (outputs, merged)),
                    *matrix(f"{merger}.linear_2", (outputs, outputs)),
                )
            ),
        )

    tensors = (
        *vector(f"{connector}.ln_in", W),
        *path(f"{connector}.coarse", scale),
        *(path(f"{connector}.fine", scale // 2) if flag(config, "use_fine_route", True) else ()),
        *vector(f"{connector}.ln_mid", outputs),
        without_bias(f"{connector}.mlp_fc2", outputs, outputs),
        *vector(f"{connector}.ln_out", outputs),
    )
    return part._replace(tensors=(*part.tensors, *projector(tensors)))
