"""Every class of texts and tokens that transformers maps a declared type to is counted as it is built."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest

from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import CAUSAL, WITH_ENCODERS
from tests.architectures.record import CLASS_DRAWS, DRAWS

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
from transformers.models.auto import modeling_auto  # noqa: E402

from tests.architectures.test_classes_agreement import assert_class_agrees  # noqa: E402
from tests.architectures.test_gemma3 import TINY  # noqa: E402
from tests.architectures.test_transformers_agreement import IS_VERSION_4  # noqa: E402

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="transformers 4 has other classes")

MAPPINGS = (
    *("MASKED_LM", "MULTIPLE_CHOICE", "NEXT_SENTENCE_PREDICTION", "PRETRAINING"),
    *("QUESTION_ANSWERING", "SEQUENCE_CLASSIFICATION", "TABLE_QUESTION_ANSWERING"),
    "TOKEN_CLASSIFICATION",
)


DRAWN = {*DRAWS, *CLASS_DRAWS, "gemma3"}


def mapped(mapping: str) -> dict[str, str]:
    """The declared types of one of transformers' mappings, with the name of their class."""
    names: dict[str, Any] = getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")
    return {
        kind: name if isinstance(name, str) else name[0]
        for kind, name in names.items()
        if kind in MODEL_TYPES
        and (MODEL_TYPES[kind].same_as or kind) in DRAWN
        and not str(name).endswith(WITH_ENCODERS)
    }


def draw(model_type: str, class_name: str, seed: int) -> dict[str, Any]:
    """A small config of a type, or of the one that it is another name of, with some classes."""
    kind = MODEL_TYPES[model_type].same_as or model_type
    if kind in CLASS_DRAWS and not (kind in DRAWS and class_name.endswith(CAUSAL)):
        config = CLASS_DRAWS[kind][1](Random(seed))
    elif kind == "gemma3":
        config = copy.deepcopy(TINY) | {"transformers_version": transformers.__version__}
    else:
        config = DRAWS[kind](Random(seed))
    if class_name.endswith("ForMaskedLM"):
        config["is_decoder"] = False  # which Reformer's insists on
    if seed and class_name not in OF_TWO:
        config["id2label"] = {str(i): f"L{i}" for i in range(1 + 2 * seed)}
    return {"model_type": model_type} | config


OF_TWO = ("DistilBertForQuestionAnswering",)  # which wants two classes and no other number
CLASSES = sorted({pair for mapping in MAPPINGS for pair in mapped(mapping).items()})


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_a_class_agrees_name_by_name(model_type: str, class_name: str) -> None:
    for seed in range(3):
        assert_class_agrees(class_name, draw(model_type, class_name, seed))
