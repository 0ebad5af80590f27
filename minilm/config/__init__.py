"""Configurations: the model's, the training's, and the presets of both."""

from minilm.config.model import ModelConfig
from minilm.config.training import TrainConfig
from minilm.config.validation import from_dict, to_dict

__all__ = ["ModelConfig", "TrainConfig", "from_dict", "to_dict"]
