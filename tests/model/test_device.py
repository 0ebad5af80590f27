"""What `auto` becomes, on versions of torch that list a CPU's capabilities and on those that do not."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from minilm.errors import ConfigError
from minilm.model.device import (
    choose_device,
    choose_dtype,
    choose_generation_dtype,
    keep_freed_memory,
    map_large_tensors,
    multiplies_bfloat16_fast,
    release_free_memory,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_bfloat16_is_chosen_on_a_cpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool
) -> None:
    capabilities = {"amx_bf16": amx, "avx512_bf16": avx512}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto", CPU) == (torch.bfloat16 if amx or avx512 else torch.float32)
    assert choose_dtype("float16", CPU) == torch.float16


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_a_torch_without_capabilities_is_asked_for_each(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert multiplies_bfloat16_fast() == (amx or avx512)


def test_a_torch_that_tells_nothing_of_the_cpu_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert choose_dtype("auto", CPU) == torch.float32


def test_a_small_model_generates_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert choose_generation_dtype("auto", CPU, 1_055_488) == torch.float32  # nano
    assert choose_generation_dtype("auto", CPU, 10_445_952) == torch.bfloat16  # small
    assert choose_generation_dtype("bfloat16", CPU, 1_055_488) == torch.bfloat16
    assert choose_generation_dtype("auto", torch.device("cuda"), 1_055_488) == torch.bfloat16
    capabilities = {"avx512_bf16": True}
    assert choose_generation_dtype("auto", CPU, 10_445_952) == torch.float32


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match="device: cuda, which torch does not find here"):
        choose_device("cuda")


def test_the_c_library_is_asked_to_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Glibc:
        def malloc_trim(self, *values: int) -> None:
            asked.append(values)

        mallopt = malloc_trim

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Glibc())
    release_free_memory()
    map_large_tensors()
    keep_freed_memory()
    assert asked == [(0,), (-3, 2**22), (-3, 2**25), (-1, 2**31 - 1)]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_is_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(name: Any) -> Any:
        asked.append(name)
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    release_free_memory()
    map_large_tensors()
    keep_freed_memory()
    assert asked == [None, None, None]
