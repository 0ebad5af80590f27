"""Train small transformers and account for every parameter in them, and in anyone else's.

`import minilm` is light: torch is imported when something that needs it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilm.inspection.report import Drawings as _Drawings
from minilm.inspection.report import draw_with as _draw_with
from minilm.version import __version__ as __version__

if TYPE_CHECKING:
    from minilm.checkpoint import load
    from minilm.claims.check import check_claims
    from minilm.config import ModelConfig, TrainConfig
    from minilm.config.presets import preset
    from minilm.federation.federate import federate
    from minilm.generation.generate import generate
    from minilm.hyperparameters.search import search
    from minilm.inspection.inspector import inspect
    from minilm.inspection.report import Report
    from minilm.interop.convert import convert
    from minilm.model.transformer import Transformer
    from minilm.operations.evaluate import evaluate
    from minilm.operations.merge import merge
    from minilm.operations.plan import plan
    from minilm.operations.prune import prune
    from minilm.operations.quantize import quantize
    from minilm.operations.share import share
    from minilm.training.train import finetune, resume, train
    from minilm.transforms.lora import set_adapter

_HOMES = {
    "ModelConfig": "minilm.config",
    "TrainConfig": "minilm.config",
    "inspect": "minilm.inspection.inspector",
    "Report": "minilm.inspection.report",
    "check_claims": "minilm.claims.check",
    "convert": "minilm.interop.convert",
    "load": "minilm.checkpoint",
    "Transformer": "minilm.model.transformer",
    "generate": "minilm.generation.generate",
    "preset": "minilm.config.presets",
    "evaluate": "minilm.operations.evaluate",
    "federate": "minilm.federation.federate",
    "finetune": "minilm.training.train",
    "merge": "minilm.operations.merge",
    "plan": "minilm.operations.plan",
    "prune": "minilm.operations.prune",
    "quantize": "minilm.operations.quantize",
    "resume": "minilm.training.train",
    "search": "minilm.hyperparameters.search",
    "set_adapter": "minilm.transforms.lora",
    "share": "minilm.operations.share",
    "train": "minilm.training.train",
}

__all__ = [
    "ModelConfig",
    "Report",
    "TrainConfig",
    "Transformer",
    "check_claims",
    "convert",
    "evaluate",
    "federate",
    "finetune",
    "generate",
    "inspect",
    "load",
    "merge",
    "plan",
    "preset",
    "prune",
    "quantize",
    "resume",
    "search",
    "set_adapter",
    "share",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minilm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


def _drawings() -> _Drawings:
    from minilm.render import report_drawings

    return report_drawings


# A report can draw itself, though `inspection` is a floor below `render`.
_draw_with(_drawings)
