"""Random small configs of types with several classes, and the classes that are declared of each.

Of BERT's kin `draws_decoders.py` has the configs.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.architectures import draws_decoders
from tests.architectures.draws import _flag, _maybe

Config = dict[str, Any]
Draw = Callable[[Random], Config]

TEXT = (
    *("{}ForMaskedLM", "{}Model", "{}ForSequenceClassification"),
    *("{}ForTokenClassification", "{}ForQuestionAnswering"),
)
CHOICE = (*TEXT, "{}ForMultipleChoice")
BERT = (*CHOICE, "{}ForPreTraining", "{}ForNextSentencePrediction")
_BERT_KIN = {
    "bert": ("Bert", BERT),
    "big_bird": ("BigBird", (*TEXT[:4], "{}ForMultipleChoice", "{}ForPreTraining")),
    "camembert": ("Camembert", CHOICE),
    "data2vec-text": ("Data2VecText", CHOICE),
    "electra": ("Electra", (*CHOICE, "{}ForPreTraining")),
    "ernie": ("Ernie", BERT),
    "megatron-bert": ("MegatronBert", BERT),
    "rembert": ("RemBert", CHOICE),
    "roberta": ("Roberta", CHOICE),
    "roberta-prelayernorm": ("RobertaPreLayerNorm", CHOICE),
    "roc_bert": ("RoCBert", CHOICE),
    "roformer": ("RoFormer", TEXT),
    "xlm-roberta": ("XLMRoberta", CHOICE),
    "xlm-roberta-xl": ("XLMRobertaXL", CHOICE),
    "xmod": ("Xmod", CHOICE),
}


def labels(random: Random) -> Config:
    """Some classes, or as many as by default."""
    return _maybe(random, id2label={str(i): f"L{i}" for i in range(random.randint(1, 4))})


def _kin(model_type: str) -> Draw:
    return lambda random: draws_decoders.DRAWS[model_type](random) | labels(random)


def encoder(random: Random, **more: Any) -> Config:
    """The sizes that BERT has; ``more`` are drawn or left out."""
    heads = random.randint(1, 3)
    return {
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **labels(random),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            intermediate_size=random.randint(1, 90),
            max_position_embeddings=random.randint(8, 64),
            tie_word_embeddings=_flag(random),
            **more,
        ),
    }


def _types(random: Random) -> Config:
    return encoder(random, type_vocab_size=random.randint(1, 4))


def _distilbert(random: Random) -> Config:
    config = encoder(random)
    config.pop("id2label", None)  # its answers must be two
    names = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
    }
    return {names.get(name, name): value for name, value in config.items()}


def _deberta(random: Random) -> Config:
    return encoder(
        random,
        type_vocab_size=random.randint(0, 3),
        relative_attention=_flag(random),
        pos_att_type=random.choice([None, "c2p", "p2c|c2p", ["p2c"]]),
        max_relative_positions=random.choice([-1, 7]),
        talking_head=_flag(random),
        position_biased_input=_flag(random),
        legacy=_flag(random),
        embedding_size=5,
        pooler_hidden_size=random.randint(1, 9),
    )


def _deberta_v2(random: Random) -> Config:
    return _deberta(random) | _maybe(
        random,
        share_att_key=_flag(random),
        position_buckets=random.choice([-1, 5]),
        norm_rel_ebd=random.choice(["none", "layer_norm"]),
        conv_kernel_size=random.choice([0, 3]),
    )


def _nystromformer(random: Random) -> Config:
    return (
        _types(random)
        | {"num_landmarks": 2, "segment_means_seq_len": 4}
        | _maybe(random, conv_kernel_size=random.choice([None, 3, 5]))
    )


# model_type: the start of its classes' names, the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {
    **{
        name: (tuple(each.format(start) for each in classes), _kin(name))
        for name, (start, classes) in _BERT_KIN.items()
    },
}


def _declare(model_type: str, start: str, classes: tuple[str, ...], draw: Draw) -> None:
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


_declare("deberta", "Deberta", TEXT, _deberta)
_declare("deberta-v2", "DebertaV2", CHOICE, _deberta_v2)
_declare("distilbert", "DistilBert", CHOICE, _distilbert)
_declare(
    "layoutlm",
    "LayoutLM",
    TEXT,
    lambda random: _types(random) | _maybe(random, max_2d_position_embeddings=7),
)
_declare("longformer", "Longformer", CHOICE, _types)
_declare("mpnet", "MPNet", CHOICE, lambda random: encoder(random, relative_attention_num_buckets=6))
_declare("mra", "Mra", CHOICE, _types)
_declare("nystromformer", "Nystromformer", CHOICE, _nystromformer)
_declare(
    "tapas",
    "Tapas",
    TEXT[:3],
    lambda random: encoder(random, type_vocab_sizes=[3, 4, 5, 6, 7, 2, 3]),
)
_declare("yoso", "Yoso", CHOICE, lambda random: _types(random) | _maybe(random, conv_window=3))


def _llama(random: Random) -> Config:
    kv_heads = random.randint(1, 3)
    config = encoder(random) | {
        "num_attention_heads": 2 * kv_heads,
        "num_key_value_heads": kv_heads,
    }
    config |= {"hidden_size": 2 * kv_heads * 4, "pad_token_id": 0}
    return config | _maybe(random, attention_bias=_flag(random), mlp_bias=_flag(random))


def _modernbert(random: Random) -> Config:
    config = encoder(random) | {"pad_token_id": 0}
    names = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "decoder_bias")
    return config | _maybe(random, **{name: _flag(random) for name in names})


def _albert(random: Random) -> Config:
    return encoder(
        random,
        type_vocab_size=3,
        embedding_size=5,
        num_hidden_groups=random.randint(1, 2),
        inner_group_num=random.randint(1, 2),
    )


def _convbert(random: Random) -> Config:
    heads = {"head_ratio": random.randint(1, 4), "num_groups": random.randint(1, 2)}
    config = encoder(random, type_vocab_size=3, conv_kernel_size=3, embedding_size=6)
    return config | heads | {"intermediate_size": 2 * random.randint(1, 9)}


def _fnet(random: Random) -> Config:
    config = _types(random) | {"vocab_size": random.randint(5, 70)}
    del config["num_attention_heads"]
    return config


def _squeezebert(random: Random) -> Config:
    sizes = {"embedding_size": 8, "hidden_size": 8, "num_attention_heads": 2}
    groups = _maybe(random, q_groups=2, output_groups=random.choice([1, 2]))
    return _types(random) | sizes | {"intermediate_size": 12} | groups


def _mobilebert(random: Random) -> Config:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "embedding_size": random.randint(1, 16)}
    sizes |= {"intra_bottleneck_size": 2 * random.randint(1, 8)}
    return (
        encoder(random)
        | sizes
        | _maybe(
            random,
            type_vocab_size=3,
            use_bottleneck=_flag(random),
            key_query_shared_bottleneck=_flag(random),
            use_bottleneck_attention=_flag(random),
            trigram_input=_flag(random),
            num_feedforward_networks=random.randint(1, 3),
            classifier_activation=_flag(random),
        )
    )


def _ultrabert(random: Random) -> Config:
    return _llama(random) | _maybe(random, prediction_head_size=5)


_declare("albert", "Albert", (*CHOICE, "{}ForPreTraining"), _albert)
_declare("convbert", "ConvBert", TEXT, _convbert)
_declare("eurobert", "EuroBert", TEXT[:4], _llama)
_declare("fnet", "FNet", BERT, _fnet)
_declare("gte", "Gte", TEXT[:4], _types)
_declare("jina_embeddings_v3", "JinaEmbeddingsV3", TEXT, _types)
_declare("mobilebert", "MobileBert", BERT, _mobilebert)
_declare("modernbert", "ModernBert", CHOICE, _modernbert)
_declare("nomic_bert", "NomicBert", TEXT[:4], _types)
_declare("squeezebert", "SqueezeBert", TEXT, _squeezebert)
_declare("ultrabert", "Ultrabert", TEXT[:2], _ultrabert)


def _seq2seq(random: Random, **more: Any) -> Config:
    """The sizes that BART has."""
    heads = random.randint(1, 3)
    return {
        "d_model": heads * 4 * random.randint(1, 3),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_layers": random.randint(1, 3),
        "decoder_layers": random.randint(1, 3),
        "pad_token_id": 0,
        **labels(random),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            encoder_ffn_dim=random.randint(1, 90),
            decoder_ffn_dim=random.randint(1, 90),
            tie_word_embeddings=_flag(random),
            max_position_embeddings=random.randint(8, 64),
            **more,
        ),
    }


def _t5(random: Random) -> Config:
    return {
        "d_model": 2 * random.randint(1, 9),
        "num_layers": random.randint(1, 4),
        **labels(random),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            num_decoder_layers=random.randint(1, 4),
            d_kv=random.randint(1, 9),
            d_ff=random.randint(1, 60),
            num_heads=random.randint(1, 4),
            relative_attention_num_buckets=4,
            feed_forward_proj=random.choice(["relu", "gated-gelu", "gated-silu"]),
            is_gated_act=_flag(random),
        ),
    }


def _longt5(random: Random) -> Config:
    kind = random.choice(["local", "transient-global"])
    return _t5(random) | _maybe(random, encoder_attention_type=kind)


def _switch(random: Random) -> Config:
    config = _t5(random)
    config.pop("feed_forward_proj", None)
    return config | _maybe(
        random,
        num_experts=random.randint(1, 4),
        num_sparse_encoder_layers=random.randint(0, 3),
        num_sparse_decoder_layers=random.randint(0, 3),
        router_bias=_flag(random),
        tie_word_embeddings=_flag(random),
    )


def _whisper(random: Random) -> Config:
    config = _seq2seq(random, num_mel_bins=7, max_source_positions=9, max_target_positions=11)
    own = {"classifier_proj_size": 5, "use_weighted_layer_sum": _flag(random)}
    return config | labels(random) | own


def _led(random: Random) -> Config:
    lengths = {"max_encoder_position_embeddings": 9, "max_decoder_position_embeddings": 11}
    return _seq2seq(random, **lengths)


def _bigbird_pegasus(random: Random) -> Config:
    return _seq2seq(random, use_bias=_flag(random))


ENCODER_DECODER = ("{}ForConditionalGeneration", "{}Model")
T5 = (*ENCODER_DECODER, "{}EncoderModel")
_declare("bart", "Bart", (*ENCODER_DECODER, "{}ForSequenceClassification"), _seq2seq)
_declare(
    "bigbird_pegasus",
    "BigBirdPegasus",
    ENCODER_DECODER,
    lambda random: _seq2seq(random, use_bias=_flag(random)),
)
_declare("blenderbot", "Blenderbot", ENCODER_DECODER, _seq2seq)
_declare("blenderbot-small", "BlenderbotSmall", ENCODER_DECODER, _seq2seq)
_declare("led", "LED", ENCODER_DECODER, _led)
_declare("longt5", "LongT5", T5, _longt5)
_declare("m2m_100", "M2M100", ENCODER_DECODER, _seq2seq)
_declare("marian", "Marian", ("{}MTModel", "{}Model"), _seq2seq)
_declare("mbart", "MBart", (*ENCODER_DECODER, "{}ForSequenceClassification"), _seq2seq)
_declare("mt5", "MT5", T5, _t5)
_declare("mvp", "Mvp", ENCODER_DECODER, _seq2seq)
_declare("pegasus", "Pegasus", ENCODER_DECODER, _seq2seq)
_declare("plbart", "PLBart", ENCODER_DECODER, _seq2seq)
_declare("switch_transformers", "SwitchTransformers", T5, _switch)
_declare("t5", "T5", T5, _t5)
_declare("umt5", "UMT5", T5, _t5)
_declare(
    "whisper",
    "Whisper",
    (*ENCODER_DECODER, "{}ForAudioClassification"),
    _whisper,
)


def _pegasus_x(random: Random) -> Config:
    return _seq2seq(random, num_global_tokens=5)


def _speech_to_text(random: Random) -> Config:
    kernels = [random.randint(1, 4) for _ in range(random.randint(1, 3))]
    channels = 2 * random.randint(1, 4)
    sizes = {"input_feat_per_channel": 7, "max_target_positions": 11}
    config = _seq2seq(random, conv_channels=channels, **sizes)
    return config | {"conv_kernel_sizes": kernels, "num_conv_layers": len(kernels)}


def _seamless(random: Random) -> Config:
    config = _seq2seq(random)
    return {"hidden_size": config.pop("d_model"), **config}


_declare("pegasus_x", "PegasusX", ENCODER_DECODER, _pegasus_x)
_declare("seamless_m4t", "SeamlessM4T", ("{}ForTextToText",), _seamless)
_declare("seamless_m4t_v2", "SeamlessM4Tv2", ("{}ForTextToText",), _seamless)
_declare("speech_to_text", "Speech2Text", ENCODER_DECODER, _speech_to_text)


def _nllb_moe(random: Random) -> Config:
    steps = {
        "encoder_sparse_step": random.randint(1, 3),
        "decoder_sparse_step": random.randint(1, 3),
    }
    return (
        _seq2seq(random, router_bias=_flag(random)) | steps | {"num_experts": random.randint(2, 4)}
    )


def _prophetnet(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_size": heads * 4,
        "num_encoder_attention_heads": heads,
        "num_decoder_attention_heads": heads,
        "num_encoder_layers": random.randint(1, 3),
        "num_decoder_layers": random.randint(1, 3),
        "pad_token_id": 0,
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            encoder_ffn_dim=random.randint(1, 90),
            decoder_ffn_dim=random.randint(1, 90),
            ngram=random.randint(1, 3),
            num_buckets=random.randint(2, 9),
            max_position_embeddings=random.randint(8, 64),
            tie_word_embeddings=_flag(random),
        ),
    }


def _moonshine(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_size": heads * 4,
        "encoder_num_attention_heads": heads,
        "decoder_num_attention_heads": 2 * heads,
        "encoder_num_hidden_layers": random.randint(1, 3),
        "decoder_num_hidden_layers": random.randint(1, 3),
        "encoder_num_key_value_heads": random.choice([None, 1]),
        "decoder_num_key_value_heads": random.choice([None, 1]),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            intermediate_size=random.randint(1, 90),
            attention_bias=_flag(random),
            tie_word_embeddings=_flag(random),
        ),
    }


def _t5gemma(random: Random) -> Config:
    def stack() -> Config:
        config = _llama(random)
        for name in ("id2label", "mlp_bias", "tie_word_embeddings"):
            config.pop(name, None)
        return config | _maybe(random, head_dim=6)

    encoder, decoder = stack(), stack()
    decoder["hidden_size"] = encoder["hidden_size"]
    for name in ("num_attention_heads", "num_key_value_heads", "vocab_size"):
        if name in encoder:
            decoder[name] = encoder[name]
    return {"encoder": encoder, "decoder": decoder}


_declare("moonshine", "Moonshine", ENCODER_DECODER[:1], _moonshine)
_declare("nllb-moe", "NllbMoe", ENCODER_DECODER, _nllb_moe)
_declare("prophetnet", "ProphetNet", ENCODER_DECODER[:1], _prophetnet)
_declare("t5gemma", "T5Gemma", ENCODER_DECODER[:1], _t5gemma)


def _esm(random: Random) -> Config:
    config = {
        "vocab_size": 33,
        "pad_token_id": 1,
        **_maybe(
            random,
            emb_layer_norm_before=_flag(random),
            position_embedding_type=random.choice(["absolute", "relative_key"]),
        ),
    }
    return encoder(random) | config


def _flaubert(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "emb_dim": 4 * heads,
        "n_heads": heads,
        "n_layers": random.randint(1, 3),
        **_maybe(
            random,
            n_langs=random.randint(1, 3),
            vocab_size=random.randint(5, 60),
            max_position_embeddings=random.randint(5, 60),
            tie_word_embeddings=_flag(random),
        ),
    }


def _esmc(random: Random) -> Config:
    config = _llama(random)
    config["num_key_value_heads"] = config["num_attention_heads"]
    return config


_declare("esm", "Esm", TEXT[:4], _esm)
_declare("esmc", "Esmc", TEXT[:2], _esmc)
_declare("flaubert", "Flaubert", ("{}WithLMHeadModel",), _flaubert)
