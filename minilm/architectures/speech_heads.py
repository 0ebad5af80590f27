"""What the classes of an encoder over speech add to it, and the adapter between: letters, speakers, codes.

Names, shapes and defaults: huggingface/transformers `models/{wav2vec2,unispeech,unispeech_sat}`.
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import L, V, d, linear, norm
from minilm.architectures.config_fields import Config, flag, size, sizes, whole_number
from minilm.architectures.task_heads import C, class_ending, head, number_of_classes, without_prefix
from minilm.architectures.vision_tower import once
from minilm.architectures.waveform import WIDTHS, convolution
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

WITHOUT_PRETRAINING = (
    "ForCTC",
    "ForSequenceClassification",
    "ForAudioFrameClassification",
    "ForXVector",
)
CLASSES = (*WITHOUT_PRETRAINING, "ForPreTraining")


def with_speech_head(
    layout: Layout,
    config: Config,
    prefix: str,
    classes: tuple[str, ...] = CLASSES,
    *,
    projection: int = 256,
    vocabulary: int | None = 32,
    adapts: bool = False,
    runs: int = 1,
) -> Layout:
    """``layout``, the body under its ``prefix``, as one of ``classes``.

    ``adapts``: the body may end in an adapter. ``runs`` is how many frames a token of the encoder stands for.
    """
    kind = class_ending(config, ("Model", *classes))
    if kind == "Model":
        return replace(
            layout,
            tensors=without_prefix(layout.tensors, prefix),
            buffers=without_prefix(layout.buffers, prefix),
        )
    symbols = dict(layout.symbols)
    has_adapter = adapts and flag(config, "add_adapter", False)
    if kind == "ForPreTraining":
        heads = _pretraining(config)
    elif kind == "ForCTC":
        symbols["V"] = size(config, "vocab_size", vocabulary)
        width = size(config, "output_hidden_size", symbols["d"])
        inputs = as_polynomial(width) if has_adapter and width != symbols["d"] else d
        heads = linear("lm_head", V, inputs, components.LM_HEAD, bias=True, repeat=ONE)
        heads = tuple(replace(tensor, runs=runs) for tensor in heads)
    else:
        if has_adapter and kind != "ForXVector":
            raise ConfigError("config.json: add_adapter", "true", f"false in a class {kind}")
        symbols["C"] = number_of_classes(config)
        heads = _classifier(config, kind, projection)
    return replace(layout, tensors=(*layout.tensors, *heads), symbols=symbols)


def over_encoder(whole: Layout, config: Config) -> Layout:
    """Whisper's classifier of a sound: the encoder of ``whole`` alone, which runs once for it."""
    part = components.ENCODER
    encoder = without_prefix(tuple(t for t in whole.tensors if t.component == part), "model.")
    heads = _classifier(config, "ForSequenceClassification", 256)
    tensors = (*encoder, *(once(t.name, t.shape, component=t.component) for t in heads))
    values = {**whole.symbols, "C": number_of_classes(config)}
    values["L"] = values["Y"]
    used = set().union(*(t.count.letters() for t in tensors))
    symbols = {letter: value for letter, value in values.items() if letter in used}
    return Layout(whole.family, tensors, symbols)


def _classifier(config: Config, kind: str, projection: int) -> Tensors:
    part, each_frame = components.CLASSIFIER, Role.MULTIPLIED
    layers: Tensors = ()
    if flag(config, "use_weighted_layer_sum", False):
        layers = (Tensor("layer_weights", (L + 1,), part, Role.ONCE),)
    if kind == "ForAudioFrameClassification":
        return (*layers, *head("classifier", C, role=each_frame))
    if kind == "ForSequenceClassification":
        width = as_polynomial(size(config, "classifier_proj_size", projection))
        projector = head("projector", width, role=each_frame)
        return (*layers, *projector, *head("classifier", C, inputs=width))
    widths = sizes(config, "tdnn_dim", (512, 512, 512, 512, 1500))
    taps = sizes(config, "tdnn_kernel", (5, 3, 3, 1, 1))
    if len(taps) < len(widths):
        got = shortened(config.get("tdnn_kernel"))
        raise ConfigError("config.json: tdnn_kernel", got, f"{len(widths)} sizes")
    inputs = (widths[0], *widths)
    delayed: list[Tensor] = []
    for i, channels in enumerate(widths):
        seen = as_polynomial(inputs[i] * taps[i])
        delayed += head(f"tdnn.{i}.kernel", as_polynomial(channels), inputs=seen, role=each_frame)
    speaker = as_polynomial(size(config, "xvector_output_dim", 512))
    return (
        *layers,
        *head("projector", as_polynomial(widths[0]), role=each_frame),
        *delayed,
        *head("feature_extractor", speaker, inputs=as_polynomial(2 * widths[-1])),
        *head("classifier", speaker, inputs=speaker),
        Tensor("objective.weight", (speaker, C), part, Role.ONCE),
    )


def _pretraining(config: Config) -> Tensors:
    """A quantizer of what the convolutions leave, and maps to where it is compared with the encoder's."""
    family, part = config["model_type"], components.QUANTIZER
    groups = size(config, "num_codevector_groups", 2)
    codes = groups * size(config, "num_codevectors_per_group", 320)
    width = size(config, "codevector_dim", 256)
    if width % groups:
        expected = f"a multiple of {groups} groups"
        raise ConfigError("config.json: codevector_dim", f"{width}", expected)
    compared = as_polynomial(size(config, "proj_codevector_dim", 256))
    code, inputs = as_polynomial(width), as_polynomial(sizes(config, "conv_dim", WIDTHS)[-1])
    if family == "unispeech-sat":  # quantizes what the encoder leaves
        inputs = d
    out, into = (d, compared) if family == "unispeech" else (compared, d)
    tensors = (
        once("quantizer.codevectors", (1, codes, width // groups), Role.LOOKED_UP, component=part),
        *head("quantizer.weight_proj", as_polynomial(codes), inputs=inputs, component=part),
        *head("project_hid", out, inputs=into, component=part),
        *head("project_q", compared, inputs=code, component=part),
    )
    if family == "unispeech":
        letters = as_polynomial(size(config, "num_ctc_classes", 80))
        return (*tensors, *head("ctc_proj", letters, component=components.LM_HEAD))
    if family == "unispeech-sat":
        labels = (size(config, "num_clusters", 504), width)
        return (
            *tensors,
            *head("speaker_proj", code, component=part),
            once("label_embeddings_concat", labels, component=part),
            *norm("layer_norm_for_extract", part, bias=True, repeat=ONE),
        )
    return tensors


def adapter(config: Config, prefix: str, width: int) -> Tensors:
    """Behind the encoder, if any: a map to another width, and gated convolutions that halve the frames."""
    if not flag(config, "add_adapter", False):
        return ()
    part, wide, maps = components.ADAPTER, *adapter_width(config, prefix, width)
    shape = (2 * wide, wide, size(config, "adapter_kernel_size", 3))
    layers = whole_number(config, "num_adapter_layers", 3)
    if not layers:
        return maps
    conv = f"{prefix}adapter.layers.{{i}}.conv"
    many = as_polynomial(layers)
    return (*maps, *convolution(conv, shape, part, role=Role.ONCE, repeat=many))


def adapter_width(config: Config, prefix: str, width: int) -> tuple[Polynomial, Tensors]:
    """The width behind the encoder, and the maps to it where it is not the encoder's own."""
    output = size(config, "output_hidden_size", width)
    if output == width:
        return d, ()
    part, wide = components.ADAPTER, as_polynomial(output)
    return wide, (
        *head(f"{prefix}adapter.proj", wide, component=part),
        *norm(f"{prefix}adapter.proj_layer_norm", part, width=wide, bias=True, repeat=ONE),
    )
