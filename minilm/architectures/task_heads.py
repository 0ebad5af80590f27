"""The head on a model's body, which `architectures` in a config.json names.

transformers saves a body alone (LlamaModel), with its language model head (LlamaForCausalLM), or with a
classifier (LlamaForSequenceClassification), and the layouts here are of the second. Which decoders have
which: MODEL_FOR_*_MAPPING_NAMES in huggingface/transformers `models/auto/modeling_auto.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import flag, is_whole_number, size, size_or_null
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial, symbol

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
WITH_ENCODERS = "ForConditionalGeneration"
CAUSAL = ("ForCausalLM", "LMHeadModel", "BertGenerationDecoder", "XLMWithLMHeadModel")
# Types whose config.json names the body where the files have the head: ChatGLM's class holds it.
_HEAD_IN_BODY = ("aquila", "chatglm")
# The types whose tokens have classes, by the name of the classifier.
_OF_TOKENS = {
    "score": (
        "apertus arcee axk1 axk2 deepseek_v3 diffllama exaone4 gemma gemma2 glm glm4 gpt_oss helium llama "
        "minimax ministral ministral3 mistral mistral4 mixtral nemotron persimmon phi phi3 qwen2 qwen2_moe "
        "qwen3 qwen3_5 qwen3_asr qwen3_moe qwen3_next seed_oss smollm3 stablelm starcoder2"
    ),
    "classifier": (
        "biogpt bloom falcon flaubert gpt2 gpt_bigcode gpt_neo gpt_neox modernvbert mpt ultravbert xlm xlnet"
    ),
}
# Those that answer by two places in a text, by the body's name in the place of the language model's.
_ANSWERING = {
    "transformer.": (
        "arcee diffllama exaone4 llama ministral nemotron qwen2 qwen3 qwen3_moe qwen3_next seed_oss smollm3"
    ),
    "": (
        "bloom falcon flaubert gpt2 gpt_neo gpt_neox gptj minimax ministral3 mistral mixtral mpt opt "
        "qwen2_moe xlm xlnet"
    ),
}
_SUMMARIZING = ("flaubert", "xlm", "xlnet")  # a text by a map in front of its classifier
_LARGER = ("modernvbert", "qwen3_5", "qwen3_asr", "ultravbert")  # with such classifiers themselves
# Types whose classifiers stand behind what their language model's head has in front of its matrix.
_BEHIND = {"modernbert-decoder": "lm_head.", "modernvbert": "projection_head.", "ultravbert": ""}
_OTHER_MODELS = re.compile("For[A-Z]|Heads")
C, d = symbol("C"), symbol("d")  # classes


class UndeclaredClassError(ConfigError):
    """Of a declared model_type, a class whose tensors are not."""


@dataclass(frozen=True)
class TaskHeads:
    """What an encoder's classes add to its body, whose names begin with ``prefix``.

    ``pooler`` is its matrix in the body, empty where it has none; with ``pooler_outside`` classifiers
    have one beside the body, as wide as `pooler_hidden_size` says. Classes of a text are read behind the
    pooler, or behind a matrix ``dense`` and a ``norm`` of their own, by ``classifier``; those of tokens by
    ``tokens``. ``language`` are the endings of the classes that have the layout's own head.
    """

    prefix: str
    pooler: str = "pooler.dense"
    pooler_outside: bool = False
    pooler_of_body: bool = True  # whether the body alone has it too
    dense: str = ""
    norm: str = ""
    classifier: str = "classifier"
    tokens: str = "classifier"
    answers: str = "qa_outputs"
    order: str = ""  # whether two texts follow each other, in ForPreTraining
    order_by_labels: bool = False  # whether its rows are those of `id2label`, not two
    language: tuple[str, ...] = ("ForMaskedLM",)
    choice: str = ""  # of several texts: a matrix in the pooler's place
    choice_by_labels: bool = False  # whether its rows are those of `id2label`
    keeps_pooler: bool = False  # in each class
    answers_are_two: bool = False  # whatever `id2label` says
    before: tuple[Tensor, ...] = ()  # in front of every classifier, as of the language model's head


ROBERTA_CLASSES: dict[str, Any] = {"dense": "classifier.dense", "classifier": "classifier.out_proj"}


def class_name_of(config: Mapping[str, Any]) -> str:
    """The first of `architectures`; empty where the config has none."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def is_body(class_name: str) -> bool:
    """Whether it is a model without a head, by its name: not a RewardModel, nor a DoubleHeadsModel."""
    return class_name.endswith("Model") and not _OTHER_MODELS.search(class_name)


def class_ending(config: Mapping[str, Any], endings: Iterable[str]) -> str:
    """The one of ``endings`` that the config's class has, the first where it names none.

    Raises UndeclaredClassError for another class.
    """
    name = class_name_of(config)
    ending = next((each for each in endings if not name or name.endswith(each)), None)
    if ending is None:
        raise undeclared_class(config)
    return ending


def with_task_head(
    layout: Layout, config: Mapping[str, Any], *, causal_only: bool = False
) -> Layout | None:
    """``layout`` with the head that the config's architecture has; None for one that is not known.

    ``causal_only`` is a layout for the language model alone, in a larger one or beside other classes.
    """
    architecture = class_name_of(config)
    if causal_only:
        return layout if not architecture or architecture.endswith(CAUSAL) else None
    if not architecture or architecture.endswith(LANGUAGE_MODELS):
        return layout
    if is_body(architecture):
        return layout if layout.family in _HEAD_IN_BODY else without_head(layout)
    return _with_classifier(layout, config)


def _with_classifier(layout: Layout, config: Mapping[str, Any]) -> Layout | None:
    """A decoder's with the classifier of the class that config.json names; None for one that is not known."""
    name, family, body = class_name_of(config), layout.family, without_head(layout)
    symbols = {**layout.symbols, "C": number_of_classes(config)}
    answers = "ForQuestionAnsweringSimple" if family in _SUMMARIZING else "ForQuestionAnswering"
    if name.endswith(("ForSequenceClassification", "ForMultipleChoice")):
        own = _of_text(layout, config)
    elif name.endswith("ForTokenClassification"):
        found = _named_for(family, _OF_TOKENS)
        by_default = family != "qwen3_asr"
        bias = found != "score" or flag(config, "token_classification_bias", by_default)
        own = (*_in_front(layout), *_per_token(found, layout, bias=bias)) if found else ()
    elif name.endswith(answers) and (prefix := _named_for(family, _ANSWERING)) is not None:
        body = _renamed(body, prefix) if prefix else body
        own = _per_token("qa_outputs", layout)
        if family not in ("gptj", *_SUMMARIZING):
            symbols["C"] = 2  # whatever `id2label` says
    else:
        own = ()
    return replace(body, tensors=(*body.tensors, *own), symbols=symbols) if own else None


def _named_for(family: str, names: Mapping[str, str]) -> str | None:
    """The name whose types have this one."""
    return next((name for name, types in names.items() if family in types.split()), None)


def _of_text(layout: Layout, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The classifier of a text, or of one of several; empty where it is not known."""
    family, is_choice = layout.family, class_name_of(config).endswith("ForMultipleChoice")
    if family in _SUMMARIZING:
        return _of_summary(config, family, is_choice=is_choice)
    if is_choice:
        return ()
    if family in _BEHIND:
        bias = family != "modernbert-decoder" or flag(config, "classifier_bias", False)
        return (*_in_front(layout), *_per_token("classifier", layout, bias=bias))
    return _per_token("classifier" if family == "ctrl" else "score", layout, bias=False)


def _in_front(layout: Layout) -> tuple[Tensor, ...]:
    """A dense map and a norm, under the name that they have in front of a classifier."""
    name = _BEHIND.get(layout.family)
    inside = (t for t in layout.tensors if name and t.name.startswith(name))
    return tuple(replace(t, name=f"head.{t.name.removeprefix(name or '')}") for t in inside)


def _of_summary(config: Mapping[str, Any], family: str, *, is_choice: bool) -> tuple[Tensor, ...]:
    """XLM's and XLNet's: a map of a text to classes, or as wide as the model, and for some one behind it."""
    by_labels = flag(config, "summary_proj_to_labels", family != "xlnet")
    uses_map = flag(config, "summary_use_proj", True)
    summary = head("sequence_summary.summary", C if by_labels else d) if uses_map else ()
    if family == "xlnet":
        return (*summary, *head("logits_proj", ONE if is_choice else C))
    return (*summary, *head("logits_proj", ONE, inputs=C)) if is_choice else summary


def _per_token(name: str, layout: Layout, *, bias: bool = True) -> tuple[Tensor, ...]:
    """A map of each token to classes, from OPT's tables' width where that is another."""
    inputs = symbol("p") if layout.family == "opt" and "p" in layout.symbols else d
    found = head(name, C, inputs=inputs, role=Role.MULTIPLIED)
    return found if bias else found[:1]


def _renamed(body: Layout, prefix: str) -> Layout:
    """The body under another name than `model.`."""
    tensors, buffers = (
        tuple(replace(t, name=t.name.replace("model.", prefix, 1)) for t in each)
        for each in (body.tensors, body.buffers)
    )
    return replace(body, tensors=tensors, buffers=buffers)


def number_of_classes(config: Mapping[str, Any], default: int = 2) -> int:
    """How many `id2label` lists, or ``default``."""
    labels = config.get("id2label")
    is_list = isinstance(labels, Mapping) and labels and all(map(is_whole_number, map(str, labels)))
    if labels is not None and not is_list:
        raise ConfigError("config.json: id2label", shortened(labels), "an object with the classes")
    return size_or_null(config, "num_labels", default if labels is None else len(labels))


def with_class(layout: Layout, config: Mapping[str, Any], heads: TaskHeads) -> Layout:
    """An encoder's ``layout``, which has a language model's head, as the class that config.json names.

    Raises UndeclaredClassError for one that is not known. An encoder sees all of a text at once: it has no
    KV cache.
    """
    name = class_name_of(config)
    layout = without_cache(layout)
    if not name or name.endswith(heads.language):
        return layout
    body = without_head(layout)
    pooled = tuple(t for t in body.tensors if t.component == components.POOLER)
    bare = tuple(t for t in body.tensors if t.component != components.POOLER)
    if heads.pooler and not pooled:
        pooled = head(heads.prefix + heads.pooler, d, component=components.POOLER)
    if is_body(name):
        return replace(
            body,
            tensors=without_prefix(
                (*bare, *(pooled if heads.pooler_of_body else ())), heads.prefix
            ),
            buffers=without_prefix(body.buffers, heads.prefix),
        )
    labels = {**layout.symbols, "C": number_of_classes(config)}
    symbols = labels if heads.order_by_labels else dict(layout.symbols)
    pairs = head(heads.order, C if heads.order_by_labels else ONE + ONE)
    if name.endswith("ForPreTraining") and (heads.order or layout.family == "roc_bert"):
        own = tuple(t for t in layout.tensors if t.component == components.LM_HEAD)
        pairs = pairs if heads.order else ()
        return replace(layout, tensors=(*bare, *pooled, *own, *pairs), symbols=symbols)
    own = pooled if heads.pooler else ()
    own += heads.before
    kept = own if heads.keeps_pooler else heads.before
    if heads.pooler_outside:
        own_width = size(config, "pooler_hidden_size", layout.symbols["d"])
        width = d if own_width == layout.symbols["d"] else as_polynomial(own_width)
        own = head("pooler.dense", width, inputs=width, component=components.POOLER)
    if name.endswith("ForNextSentencePrediction") and heads.order:
        return replace(body, tensors=(*bare, *own, *pairs), symbols=symbols)
    if name.endswith("ForMultipleChoice"):
        rows = C if heads.choice_by_labels else d
        own = head(heads.choice, rows) if heads.choice else own
        symbols = labels if rows == C else symbols
        return replace(body, tensors=(*bare, *own, *head("classifier", ONE)), symbols=symbols)
    symbols = labels
    if name.endswith("ForSequenceClassification"):
        if heads.dense:
            own = (*kept, *head(heads.dense, d))
        classes = head(heads.classifier, C)
    elif name.endswith("ForTokenClassification"):
        own, classes = kept, head(heads.tokens, C, role=Role.MULTIPLIED)
    elif name.endswith("ForQuestionAnswering") and heads.answers:
        if heads.answers_are_two:
            symbols["C"] = 2
        own, classes = kept, head(heads.answers, C, role=Role.MULTIPLIED)
    else:
        raise undeclared_class(config)
    return replace(body, tensors=(*bare, *own, *classes), symbols=symbols)


def whole_or_body(layout: Layout, config: Mapping[str, Any], ending: str = WITH_ENCODERS) -> Layout:
    """``layout`` of a class with this ending, or without its head where config.json names the body.

    Raises UndeclaredClassError for another class.
    """
    name = class_name_of(config)
    if is_body(name):
        return without_head(layout)
    if not name or name.endswith(ending):
        return layout
    classified = _with_classifier(layout, config) if layout.family in _LARGER else None
    if classified is None:
        raise undeclared_class(config)
    return classified


def undeclared_class(config: Mapping[str, Any]) -> UndeclaredClassError:
    """The error for the class that config.json names."""
    return UndeclaredClassError(
        "config.json: architectures", class_name_of(config), "a declared class"
    )


def head(
    name: str,
    outputs: Polynomial,
    *,
    inputs: Polynomial = d,
    component: str = components.CLASSIFIER,
    role: Role = Role.ONCE,
) -> tuple[Tensor, ...]:
    """A matrix with a bias, by default used once a text."""
    bias = Tensor(f"{name}.bias", (outputs,), component, Role.ADDED)
    return Tensor(f"{name}.weight", (outputs, inputs), component, role), bias


def without_prefix(tensors: tuple[Tensor, ...], prefix: str) -> tuple[Tensor, ...]:
    return tuple(replace(t, name=t.name.removeprefix(prefix)) for t in tensors)


def without_cache(layout: Layout) -> Layout:
    """One that sees all of a text at once keeps no keys and values."""
    attention = tuple(replace(kind, cache=ZERO) for kind in layout.attention)
    return replace(layout, attention=attention)


def without_head(
    layout: Layout, head_components: Collection[str] = (components.LM_HEAD,)
) -> Layout:
    """The body alone, with the ties of its own tensors."""
    body = tuple(t for t in layout.tensors if t.component not in head_components)
    heads = {t.name for t in layout.tensors if t.component in head_components}
    ties = tuple(
        pair
        for pair in layout.ties
        if not heads & {*pair}
        and len({name.partition(".")[0] for name in pair}) == 1
        and "lm_head" not in pair[0]
    )
    return replace(layout, tensors=body, ties=ties)
