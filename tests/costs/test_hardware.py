"""The table of GPUs: the cards that it has, and others that have a similar name."""

import pytest

from minilm.costs.hardware import gpu_peak_flops

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
