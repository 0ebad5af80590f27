"""A model is known by its parameters: every name, bit and dtype counts, and no layout in memory."""

import pytest
import torch
from torch import nn

from minilm.model.digest import parameters_sha256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_bit_of_a_parameter_is_another_model(dtype: torch.dtype) -> None:
    model = nn.ParameterDict({"weight": torch.ones(2, 3, dtype=dtype), "scale": torch.ones(())})
    before = parameters_sha256(model)
    model["weight"].data = torch.ones(3, 2, dtype=dtype).T  # the same numbers, strided
    assert parameters_sha256(model) == before
    model["weight"].data[1, 2] = torch.nextafter(
        torch.ones((), dtype=dtype), torch.zeros(()).to(dtype)
    )
    assert parameters_sha256(model) != before


def test_a_name_is_part_of_it() -> None:
    one, other = (nn.ParameterDict({name: torch.ones(2)}) for name in ("a", "b"))
    assert parameters_sha256(one) != parameters_sha256(other)
