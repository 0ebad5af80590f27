"""The table of GPUs: the cards that it has, and others that have a similar name."""

import pytest

from minilm.costs.hardware import GPUS, cards_sold_as, find_gpu, gpu_peak_flops, parse_cards
from minilm.errors import InputError

NAMES = {  # as torch.cuda.get_device_name() and nvidia-smi write them
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A10": 125e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA RTX 6000 Ada Generation": 364e12,
}


@pytest.mark.parametrize(("name", "flops"), NAMES.items())
def test_a_card_of_the_table(name: str, flops: float) -> None:
    assert gpu_peak_flops(name) == pytest.approx(flops)


@pytest.mark.parametrize(
    "name",
    [
        *("Tesla T4", "NVIDIA A10G", "NVIDIA GB200", "NVIDIA H200 NVL", "NVIDIA H100 80GB MIG 1g"),
        *("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "AMD Instinct MI300X"),
    ],
)
def test_another_card_is_not_taken_for_one_of_the_table(name: str) -> None:
    assert gpu_peak_flops(name) is None


@pytest.mark.parametrize(
    ("text", "number", "size"),
    [
        ("24GB", 1, 24 * 10**9),
        ("80GiB", 1, 80 * 2**30),
        ("2x48GB", 2, 48 * 10**9),
        ("8 × 80 GiB", 8, 80 * 2**30),
        ("4X 40g", 4, 40 * 10**9),
        ("H100", 1, int(79.1 * 2**30)),
        ("2xrtx4090", 2, int(23.5 * 2**30)),
        ("a100 80gb", 1, int(79.1 * 2**30)),
    ],
)
def test_memory_of_cards(text: str, number: int, size: int) -> None:
    assert parse_cards(text, "--fits") == (number, size)


@pytest.mark.parametrize("text", ["", "x", "0x24GB", "2x", "A100", "2x24", "2x2x24GB", "99999x1GB"])
def test_what_is_no_memory_of_cards(text: str) -> None:
    with pytest.raises(InputError, match=r"^--fits: "):
        parse_cards(text, "--fits")


def test_a_card_has_other_memory_than_it_is_sold_with() -> None:
    assert cards_sold_as(80 * 10**9).keys() == {"A100-80GB", "H100"}
    assert all(80 * 10**9 < size < 80 * 2**30 for size in cards_sold_as(80 * 10**9).values())
    assert cards_sold_as(80 * 2**30) == {}


# Rates with sparsity, as data sheets print them first.
SPARSE = {
    "A100-80GB": 624,
    "H100": 1979,
    "H200": 1979,
    "L40S": 733,
    "B200": 4500,
    "RTX 4090": 330.3,
}


def test_peaks_are_dense_ones() -> None:
    for name, sparse in SPARSE.items():
        assert GPUS[name].peak_flops("bfloat16") == pytest.approx(sparse * 1e12 / 2, rel=0.02)
    for gpu in GPUS.values():
        assert gpu.tflops["float32"] < gpu.tflops["float16"]
        # NVLink or PCIe, one direction; tens to hundreds of watts.
        assert 10 < gpu.link <= 900
        assert 70 <= gpu.watts <= 1000
        assert gpu.sold * 10**9 * 0.9 < gpu.memory < gpu.sold * 2**30


def test_peaks_by_dtype() -> None:
    assert GPUS["A100-80GB"].peak_flops("float32") == 156e12  # TF32
    assert GPUS["V100-32GB"].peak_flops("float32") == 15.7e12
    for name, device in (("T4", "Tesla T4"), ("V100-16GB", "Tesla V100-SXM2-16GB")):
        assert GPUS[name].peak_flops("bfloat16") is None
        assert gpu_peak_flops(device) is None
        assert gpu_peak_flops(device, "float16") == GPUS[name].peak_flops("float16")
    assert gpu_peak_flops("NVIDIA GB300", "float16") is None


def test_names_of_cards() -> None:
    assert find_gpu("rtx4090") == find_gpu("RTX-4090") == "RTX 4090"
    assert find_gpu("a100 80gb") == "A100-80GB"
    assert find_gpu("A100") is find_gpu("MI300X") is find_gpu("") is None
