"""A layout under the names of transformers' modules, where a file has those.

`save_pretrained` of version 5 writes many models under the names of version 4, or of the first files, which
the layouts have; what saves a `state_dict` by itself writes those of the modules. What is called otherwise:
huggingface/transformers `conversion_mapping.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from dataclasses import replace

from minilm.inspection.comparison import body_prefix
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor, Tensors
from minilm.ledger.symbols import ZERO, Polynomial

_TEXT = "language_model."
# The part of an omni model that is an image-text model, and those that make sound of it.
_THINKER, _SPEAKING = "thinker.", ("code2wav.", "talker.", "token2wav.")
_BARE_TEXT = re.compile(r"model\.(embed_tokens|layers|norm)\.")
# Parts of names in files, and of the modules, in the order in which they are replaced.
_RENAMED = (
    # Parts of a whole.
    ("model.language_model.lm_head.", "lm_head."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "language_model."),
    ("backbone.conv_encoder.", "backbone."),
    ("backbone.", "model."),
    ("ultrabert.", "model."),
    ("cls.", "head.decoder."),
    ("embed_out.", "lm_head."),
    ("head.decoder.", "lm_head."),
    ("head.weight", "lm_head.weight"),
    ("head.linear", "projection_head.linear"),
    ("head.norm.", "head.layer_norm."),
    ("word_embeddings.", "embed_tokens."),
    ("emb_ln.", "embeddings.LayerNorm."),
    ("vision_projector.", "projector."),
    ("mlp_AR.", "projector."),
    ("projector.layers.", "multi_modal_projector."),
    ("patch_merge_mlp.", "multi_modal_projector.merge_"),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
    ("view_seperator", "view_separator"),
    ("encoder.layer.", "layers."),
    ("encoder.layers.", "layers."),
    ("encoder.", "encoder.text_model."),
    ("layer.", "model.layer."),
    ("encoder.relative_position_bias.", "shared_position_bias."),
    ("encoder.mid_position_embeddings", "encoder.interpolation.mid_position_embeddings"),
    ("model.llm.unembed.", "lm_head."),
    ("model.llm.", "model."),
    ("model.embed.", "model.embed_tokens."),
    ("model.embed_norm.", "model.embed_tokens.embed_norm."),
    ("attn_res.mlp_queries.{i}", "layers.{i}.mlp_input.query"),
    ("attn_res.output_query", "final_input.query"),
    ("log_softmax.mlp.layer0.", "proj_out."),
    ("encoder_decoder_proj.", "decoder.proj."),
    ("transf_decoder._embedding.token_embedding.", "decoder.embed_tokens."),
    ("transf_decoder._embedding.position_embedding.pos_enc", "decoder.pos_emb.weight"),
    ("transf_decoder._embedding.layer_norm.", "decoder.embedding_layernorm."),
    ("transf_decoder._decoder.final_layer_norm.", "decoder.norm."),
    ("transf_decoder._decoder.", "decoder."),
    (".pre_encode.conv.", ".subsampling.layers."),
    (".pre_encode.out.", ".subsampling.linear."),
    ("vit_large_projector.", "multi_modal_projector."),
    ("vlm.", "vlm.model."),
    ("encoder.encoder.", "encoder.aifi."),
    # Heads over maps.
    (".k_linear.", ".k_proj."),
    (".q_linear.", ".q_proj."),
    ("mask_head.out_lay.", "mask_head.output_conv."),
    *((f"mask_head.lay{n}.", f"mask_head.conv{n}.conv.") for n in (1, 2)),
    *((f"mask_head.gn{n}.", f"mask_head.conv{n}.norm.") for n in (1, 2)),
    *((f"mask_head.lay{n}.", f"mask_head.fpn_stages.{n - 3}.refine.conv.") for n in (3, 4, 5)),
    *((f"mask_head.gn{n}.", f"mask_head.fpn_stages.{n - 3}.refine.norm.") for n in (3, 4, 5)),
    *((f"mask_head.adapter{n}.", f"mask_head.fpn_stages.{n - 1}.fpn_adapter.") for n in (1, 2, 3)),
    # Towers.
    ("vision_embedder.", "embed_vision."),
    ("embed_vision.embedding_", "embed_vision.multimodal_embedder.embedding_"),
    ("model.vit.", "model.vision_tower."),
    ("vision_tower.vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.proj."),
    ("vision_tower.vision_model.", "vision_tower."),
    ("sam_model.net_2.", "sam_model.proj.conv1."),
    ("sam_model.net_3.", "sam_model.proj.conv2."),
    ("sam_model.blocks.", "sam_model.layers."),
    ("sam_model.", "vision_tower.sam_encoder."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
    ("patch_embed.proj.", "patch_embed.projection."),
    ("qwen2_model.model.model.", "vision_tower.vision_encoder."),
    ("qwen2_model.query_768.", "vision_tower.query_768_resolution."),
    ("qwen2_model.query_1024.", "vision_tower.query_1024_resolution."),
    ("vision_model.transformer.", "vision_model.encoder."),
    ("vision_model.", "vision_tower.vision_encoder."),
    ("vision_model.conv1.", "vision_model.embeddings.patch_embedding."),
    ("vision_model.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("vision_model.vit_downsampler", "vision_model.downsampler"),
    ("transformer.resblocks.", "layers."),
    (".ln_pre.", ".pre_layernorm."),
    (".ls_1.gamma", ".lambda_1"),
    (".ls_2.gamma", ".lambda_2"),
    ("patchifier.", "patch_embed."),
    ("perceive.proj.0.", "perceive.proj_conv."),
    ("perceive.proj.2.", "perceive.proj_out."),
    ("perceive.", "patch_merger."),
    ("radio_model.model.patch_generator.cls_token.token", "embeddings.cls_register_token"),
    ("radio_model.model.patch_generator.embedder.", "embeddings.patch_projection."),
    ("radio_model.model.patch_generator.pos_embed", "embeddings.position_embedding"),
    ("radio_model.model.patch_generator.video_embedder.", "embeddings.video_patch_projection."),
    ("radio_model.model.blocks.", "encoder.layer."),
    ("radio_model.", ""),
    # Norms.
    (".attn_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
    (".attention_layer_norm.", ".input_layernorm."),
    (".feedforward_layer_norm.", ".post_attention_layernorm."),
    (".input_layernorm.", ".layer_norm1."),
    (".post_attention_layernorm.", ".layer_norm2."),
    (".attn_ln.", ".norm1."),
    (".mlp_ln.", ".norm2."),
    (".norm1.", ".post_attention_layernorm."),
    (".norm2.", ".post_mlp_layernorm."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".post_attn_norm.", ".post_self_attn_layernorm."),
    (".post_ffn_norm.", ".post_mlp_layernorm."),
    (".post_mlp_layernorm.", ".mlp.post_mlp_layernorm."),
    (".attn_norm.", ".input_layernorm."),
    (".mlp_norm.", ".post_attention_layernorm."),
    ("_input_norm.", "_input_layernorm."),
    (".ln_1.", ".layernorm_before."),
    (".ln_2.", ".layernorm_after."),
    (".layer_norm_1.", ".layernorm_before."),
    (".layer_norm_2.", ".layernorm_after."),
    (".layer_norm_1.", ".input_layernorm."),
    (".layer_norm_2.", ".post_attention_layernorm."),
    (".layer_norm_3.", ".final_layernorm."),
    (".batch_norm.", ".norm."),
    # Attention.
    (".indexer.compressor.", ".compressor.indexer."),
    (".indexer.weights_proj.", ".compressor.indexer.scorer.weights_proj."),
    (".indexer.wq_b.", ".compressor.indexer.wq_b."),
    (".attention.attention.relative_position_bias.", ".relative_position_bias."),
    (".attention.query.", ".q_proj."),
    (".attention.key.", ".k_proj."),
    (".attention.value.", ".v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".self.query.", ".q_proj."),
    (".self.key.", ".k_proj."),
    (".self.value.", ".v_proj."),
    (".self.relative_position_bias", ".relative_position_bias.relative_position_bias"),
    (".attn.proj.", ".attention.o_proj."),
    (".attn.", ".attention."),
    (".mixer.", ".attention."),
    (".attention.", ".self_attn."),
    (".self_attn.dense.", ".self_attn.o_proj."),
    (".out_proj.", ".o_proj."),
    (".self_attn.gate_proj.", ".self_attn.g_proj."),
    (".self_attn.index_", ".self_attn.indexer."),
    (".self_attn.A_log", ".self_attn.forget_gate.A_log"),
    (".self_attn.dt_bias", ".self_attn.forget_gate.dt_bias"),
    (".self_attn.f_", ".self_attn.forget_gate.f_"),
    (".self_attn.q_b_proj.", ".self_attn.q_gate_proj."),
    (".attention_sink_bias", ".sinks"),
    (".attn_sink", ".sinks"),
    (".learnable_sink_param", ".sinks"),
    (".softmax_offset", ".sinks"),
    (".q_layernorm.", ".q_norm."),
    (".k_layernorm.", ".k_norm."),
    (".q_norm.", ".q_a_norm."),
    (".norm.", ".kv_norm."),
    (".wq_a.", ".q_a_proj."),
    (".wq_b.", ".q_b_proj."),
    (".wkv.", ".kv_proj."),
    (".wgate.", ".gate_proj."),
    (".wo_a.", ".o_a_proj."),
    (".wo_b.", ".o_b_proj."),
    (".linear_gate.", ".gate_proj."),
    (".ape", ".position_bias"),
    (".self.sr.", ".sequence_reduction.sequence_reduction."),
    (".self.layer_norm.", ".sequence_reduction.layer_norm."),
    (".first_sub_layer.", ".self_attn."),
    (".second_sub_layer.", ".encoder_attn."),
    (".query_net.", ".q_proj."),
    (".key_net.", ".k_proj."),
    (".value_net.", ".v_proj."),
    (".out_projection.", ".o_proj."),
    (".linear_q.", ".q_proj."),
    (".linear_k.", ".k_proj."),
    (".linear_v.", ".v_proj."),
    (".linear_out.", ".o_proj."),
    (".linear_pos.", ".relative_k_proj."),
    (".pos_bias_", ".bias_"),
    (".wq_du.", ".q_proj."),
    (".wk_dv.", ".k_proj."),
    (".wv_dv.", ".v_proj."),
    (".wo_ud.", ".o_proj."),
    (".wr_du.", ".r_proj."),
    (".attn_sink_proj.", ".sink_proj."),
    (".gate_attn.", ".gate_proj."),
    ("_sconv.static_w", "_sconv.static_weight"),
    ("_sconv.weight_proj", "_sconv.weight_proj.weight"),
    ("_sconv.weight", "_sconv.conv1d.weight"),
    (".attn_sconv.", ".post_attention_convolution."),
    (".mlp_sconv.", ".post_mlp_convolution."),
    # Residual streams.
    (".hc_attn_layer.hc_", ".attn_hc."),
    (".hc_mlp_layer.hc_", ".ffn_hc."),
    (".hc_attn_", ".attn_hc."),
    (".hc_ffn_", ".ffn_hc."),
    (".hc_head_", ".hc_"),
    (".hc_pre.", "."),
    # Feed-forwards and experts.
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".weights_out.", ".down_proj."),
    (".fc1.", ".mlp.fc1."),
    (".fc2.", ".mlp.fc2."),
    (".fc11.", ".up_proj."),
    (".fc12.", ".gate_proj."),
    (".fc2.", ".down_proj."),
    ("dense_h_to_4h.", "fc1."),
    ("dense_4h_to_h.", "fc2."),
    ("W_down.", "mlp.fc1."),
    ("W_up.", "mlp.fc2."),
    (".experts.fc1.weight", ".experts.gate_up_proj"),
    (".experts.fc2.weight", ".experts.down_proj"),
    (".input_linear.weight", ".experts.gate_up_proj"),
    (".output_linear.weight", ".experts.down_proj"),
    (".experts.w13_weight", ".experts.gate_up_proj"),
    (".experts.w2_weight", ".experts.down_proj"),
    (".mlp.gate.bias", ".mlp.gate.e_score_correction_bias"),
    (".third_sub_layer.dense_in.", ".mlp.fc1."),
    (".third_sub_layer.dense_out.", ".mlp.fc2."),
    (".moe.router_bias", ".mlp.gate.e_score_correction_bias"),
    (".moe.gate.", ".mlp.gate."),
    (".moe.down_proj.weight", ".mlp.experts.down_proj"),
    (".share_expert.", ".mlp.shared_experts."),
    (".c_fc.", ".fc1."),
    (".c_proj.", ".fc2."),
    (".mlp.dense1.", ".mlp.fc1."),
    (".mlp.dense2.", ".mlp.fc2."),
    (".router.layer.", ".router."),
    (".block_sparse_moe.", ".mlp."),
    (".ffn.", ".mlp."),
    (".mlp.gate.", ".mlp.router."),
    (".mlp.router.gate.", ".mlp.gate."),
    (".mlp.moe_statics.", ".mlp.gate.moe_statics."),
    (".mlp.experts.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"),
    (".shared_mlp.", ".shared_experts."),
    (".shared_expert.", ".shared_experts."),
    (".shared_experts.w1.", ".shared_experts.gate_proj."),
    (".shared_experts.w2.", ".shared_experts.down_proj."),
    (".shared_experts.w3.", ".shared_experts.up_proj."),
)
# Where a number stands elsewhere in the name.
_NUMBERED = (
    (r"encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"encoder\.(layer_norm|patch_embeddings)\.(\d+)\.", r"stages.\2.\1."),
)
# What a file numbers from the second layer on, which has it first.
_FROM_SECOND = ("model.llm.attn_res.attn_queries.{i}", "model.layers.{i}.attention_input.query")
# Several tensors of a file that are one of a module, and the other way round.
_JOINED: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".q_conv1d.", ".k_conv1d.", ".v_conv1d."), ".conv1d."),
    ((".moe.gate_proj.weight", ".moe.up_proj.weight"), ".mlp.experts.gate_up_proj"),
    ((".gate_proj.", ".up_proj."), ".gate_up_proj."),
)
_JOINED_COMPONENTS = {
    components.FEED_FORWARD_GATE: components.FEED_FORWARD_GATE_UP,
    components.EXPERTS_GATE: components.EXPERTS_GATE_UP,
}
_QUERY_KEY_VALUE = (".q_proj.", ".k_proj.", ".v_proj.")
_SPLIT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (".qkv_proj.", _QUERY_KEY_VALUE),
    (".qkv.", _QUERY_KEY_VALUE),
    (".Wqkv.", _QUERY_KEY_VALUE),
    (".in_proj_weight", tuple(f"{part}weight" for part in _QUERY_KEY_VALUE)),
    (".in_proj_bias", tuple(f"{part}bias" for part in _QUERY_KEY_VALUE)),
    (".gqkv_proj.", (".gate_proj.", *_QUERY_KEY_VALUE)),
    (".gate_up_proj.", (".gate_proj.", ".up_proj.")),
    (".up_gate_proj.", (".up_proj.", ".gate_proj.")),
    (".weights_in.", (".gate_proj.", ".up_proj.")),
)


def with_names_of_file(layout: Layout, names: Set[str]) -> Layout:
    """``layout``, under the names of the modules if more of the file's are of those, or of the body's."""
    tables = {t.name for t in layout.tensors if t.component == components.TOKEN_EMBEDDING}
    # Mostly a file holds the declared table: nothing is expanded for it.
    starts = (_TEXT, f"model.{_TEXT}", f"{_THINKER}model.{_TEXT}")
    if tables & names or not any(name.startswith(starts) for name in names):
        return layout
    moved = replace(
        layout,
        tensors=_moved(layout.tensors),
        buffers=_moved(layout.buffers),
        mtp=_moved(layout.mtp),
        ignored=tuple(map(_name_of_module, layout.ignored)),
        ties=tuple((_name_of_module(copy), _name_of_module(table)) for copy, table in layout.ties),
    )
    declared, of_modules = ({t.name for t in each.named_tensors()} for each in (layout, moved))
    in_file = max(len(of_modules & names), len(of_modules & {f"model.{name}" for name in names}))
    return moved if in_file > len(declared & names) else layout


def _moved(tensors: Tensors) -> Tensors:
    return tuple(replace(tensor, name=_name_of_module(tensor.name)) for tensor in tensors)


def _name_of_module(name: str) -> str:
    """The text is in `model.language_model`, the head outside of `model`, and all else in it."""
    if name.startswith(_SPEAKING):
        return name
    if name.startswith(_THINKER):
        return _THINKER + _name_of_module(name.removeprefix(_THINKER))
    text = name.removeprefix(_TEXT)
    if text.startswith(("lm_head.", "score.")):
        return text
    if _BARE_TEXT.match(name) or (name != text and text.startswith("model.")):
        return f"model.{_TEXT}{text.removeprefix('model.')}"
    return name if name.startswith("model.") else f"model.{name}"


def with_tensors_of_modules(layout: Layout, names: Set[str]) -> Layout:
    """``layout`` with what the file lacks as a module has it, where the file has that."""
    prefix, declared = body_prefix(layout), {t.name for t in layout.tensors}
    if any(name.startswith(prefix) for name in names):
        prefix = ""  # no body alone

    def in_file(name: str, layer: int) -> bool:
        one = name.replace("{i}", str(layer)).replace("{e}", "0")
        return one in names or one.removeprefix(prefix) in names

    def find(name: str, layer: int = 0) -> str:
        """What the file calls it, by one layer: empty where it has nothing of it."""
        if in_file(name, layer):
            return name
        others = (each for each in _names_of_modules(name) if each not in declared)
        return next((each for each in others if in_file(each, layer)), "")

    def stored(tensors: Tensors) -> Tensors:
        return tuple(part for tensor in tensors for part in _as_stored(tensor, tensors, find))

    ties = tuple((find(copy) or copy, find(table) or table) for copy, table in layout.ties)
    return replace(
        layout, tensors=stored(layout.tensors), buffers=stored(layout.buffers), ties=ties
    )


def _names_of_modules(name: str) -> list[str]:
    """``name``, and all else that a module may call it."""
    every = [name, *(re.sub(old, new, name) for old, new in _NUMBERED if re.search(old, name))]
    for old, new in _RENAMED:
        every += [each.replace(old, new) for each in every if old in each]
    return every


def _as_stored(tensor: Tensor, others: Tensors, find: Callable[[str, int], str]) -> Tensors:
    """``tensor`` as the file has it: under another name, joined with ``others``, or split."""
    layer = tensor.layers[0] if tensor.layers else 0
    if name := find(tensor.name, layer):
        return (tensor if name == tensor.name else replace(tensor, name=name),)
    if tensor.name == _FROM_SECOND[0] and find(_FROM_SECOND[1], layer + 1):
        later = [i + 1 for i in tensor.layers or ()]
        return (replace(tensor, name=_FROM_SECOND[1], layers=later),)
    for parts, whole in _JOINED:
        part = next((each for each in parts if each in tensor.name), "")
        if part and (name := find(tensor.name.replace(part, whole), layer)):
            if part != parts[0]:
                return ()  # it is in the first one's
            same = [tensor.name.replace(part, each) for each in parts]
            joined = [t for t in others if t.name in same and t.layers == tensor.layers]
            at = int(tensor.routed)  # behind the experts
            rows = sum((t.shape[at] for t in joined), ZERO)
            component = _JOINED_COMPONENTS.get(tensor.component, tensor.component)
            shape = (*tensor.shape[:at], rows, *tensor.shape[at + 1 :])
            return (replace(tensor, name=name, shape=shape, component=component),)
    for whole, parts in _SPLIT:
        if whole not in tensor.name:
            continue
        pieces = [find(tensor.name.replace(whole, each), layer) for each in parts]
        if all(pieces):
            terms = tensor.shape[0].terms.items()
            rows = Polynomial({monomial: c // len(parts) for monomial, c in terms})
            shape = (rows, *tensor.shape[1:])
            return tuple(replace(tensor, name=each, shape=shape) for each in pieces)
    return (tensor,)
