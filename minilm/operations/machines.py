"""Machines: the cards that a run is planned for, by name or by the numbers of a card that is not known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minilm.costs.hardware import GPUS, Gpu, find_gpu
from minilm.dtypes import BITS
from minilm.errors import InputError

# The least and the most of a number that is given, its unit, and what is expected.
RANGES: dict[str, tuple[float, float, str, str]] = {
    "--gpu-memory": (1, 1e15, "bytes", "a size up to 1,000 TB, such as 80GB"),
    "--gpu-flops": (1e9, 1e18, "FLOP/s", "1e9 to 1e18, such as 989T"),
    "--gpu-link": (1e6, 1e15, "bytes a second", "0.001 to 1,000,000 GB/s"),
    "--network": (1e6, 1e15, "bytes a second", "0.008 to 8,000,000 Gbit/s"),
    "--gpu-watts": (0.1, 1e6, "W", "0.1 to 1,000,000"),
}

UNKNOWN = Gpu(sold=0, tflops={}, link=0, watts=0)


@dataclass(frozen=True)
class Machines:
    """``gpus`` cards of one kind, as many in each server; ``network`` is in bytes a second a card.

    ``flops`` is the dense peak of the dtype that is trained in; ``watts`` None where they are not known.
    """

    gpu: str
    gpus: int
    gpus_per_server: int
    memory: int
    flops: float
    link: float
    network: float | None
    watts: float | None

    @property
    def servers(self) -> int:
        """How many servers they stand in."""
        return -(-self.gpus // self.gpus_per_server)


def find_machines(
    name: str,
    gpus: int,
    gpus_per_server: int,
    dtype: str,
    *,
    memory: int | None,
    flops: float | None,
    link: float | None,
    network: float | None,
    watts: float | None,
) -> Machines:
    """The card's own numbers, but for those that are given. An unknown card has none of another's."""
    numbers = {
        "--gpu-memory": memory,
        "--gpu-flops": flops,
        "--gpu-link": link,
        "--network": network,
        "--gpu-watts": watts,
    }
    for option, number in numbers.items():
        least, most, unit, expected = RANGES[option]
        if number is not None and not least <= number <= most:
            raise InputError(option, f"{number:g} {unit}", expected)
    known = find_gpu(name)
    if known is None:
        needed = ["--gpu-memory", "--gpu-flops", *(["--gpu-link"] if gpus > 1 else [])]
        missing = [option for option in needed if numbers[option] is None]
        if missing:
            expected = f"one of {', '.join(_similar(name) or GPUS)}"
            remedy = f"or give its own numbers: {', '.join(missing)}"
            raise InputError("--gpu", f"{name[:40]!r}, an unknown card", expected, remedy)
    gpu = UNKNOWN if known is None else GPUS[known]
    if flops is None:
        flops = gpu.peak_flops(dtype)
    if flops is None:
        raise InputError(
            "--dtype",
            f"{dtype}, for which {name[:40]} has no matrix units",
            f"one of {', '.join(x for x in gpu.tflops if x in BITS)}",
        )
    if network is None and gpu.network:
        network = gpu.network * 1e9 / 8
    if network is None and gpus > gpus_per_server:
        raise InputError(
            "--network",
            f"not known of servers with {name[:40]}",
            "Gbit/s between servers, a card's share",
        )
    return Machines(
        gpu=known or name,
        gpus=gpus,
        gpus_per_server=gpus_per_server,
        memory=memory or gpu.memory,
        flops=flops,
        link=link or gpu.link * 1e9,
        network=network,
        watts=watts or gpu.watts or None,
    )


def _similar(name: str) -> list[str]:
    """The known cards that share a word with a digit with ``name``: A100, NVIDIA H100 80GB HBM3."""
    words = {word for word in re.split(r"[^A-Z0-9]+", name.upper()) if re.search(r"\d", word)}
    return [card for card in GPUS if words & set(re.split(r"[ -]", card.upper()))]
