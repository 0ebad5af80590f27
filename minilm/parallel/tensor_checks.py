"""What tensor parallelism cannot share out: asked of every run, without seconds of importing."""

from __future__ import annotations

from minilm.config import ModelConfig
from minilm.costs.mesh import divides
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import World
from minilm.units import counted


def check(config: ModelConfig, tensor: int, world: World) -> None:
    """Raises ConfigError unless ``tensor`` processes of ``world`` can share the matrices of a model."""
    if tensor == 1:
        return
    if not world.is_parallel:
        expected = f"{tensor} or more that torchrun starts"
        raise _refusal(tensor, "one process", expected)
    if world.size % tensor:
        processes = counted(world.size, "process", "processes")
        raise _refusal(tensor, processes, "a number that divides them")
    if not divides(config, tensor):
        got = f"{config.num_kv_heads} key/value heads and {config.d_feed_forward} hidden units"
        raise _refusal(tensor, got, "a number that divides both")
    if config.convolution:
        raise _refusal(tensor, "a convolution", "--model.convolution 0")


def check_training(model: Transformer, tensor: int) -> None:
    """Raises ConfigError unless all of ``model`` is trained, and without dropout."""
    if model.config.dropout:
        raise _refusal(
            tensor, f"dropout {model.config.dropout:g}", "a run begun with --model.dropout 0"
        )
    if not all(parameter.requires_grad for parameter in model.parameters()):
        raise _refusal(tensor, "an adapter or frozen parameters", "a model that is trained whole")


def _refusal(tensor: int, got: str, expected: str) -> ConfigError:
    return ConfigError("tensor_parallel", f"{tensor} with {got}", expected)
