"""AdamW: torch's own update, without the seconds that importing torch's compiler takes."""

import torch

from minilm.training.adamw import AdamW


def groups() -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((8, 24), (24,), (5, 8))
    drawn = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return [{"params": drawn[:2], "weight_decay": 0.1}, {"params": drawn[2:], "weight_decay": 0.0}]


def test_updates_and_state_are_those_of_torch_bit_for_bit() -> None:
    own, reference = groups(), groups()
    adamw = AdamW(own, lr=0.01, betas=(0.9, 0.95))
    peer = torch.optim.AdamW(reference, lr=0.01, betas=(0.9, 0.95), fused=True)
    generator = torch.Generator().manual_seed(4)
    for step in range(4):
        for optimizer in (adamw, peer):
            optimizer.param_groups[1]["lr"] = 0.01 / (step + 1)
        for a, b in zip(own, reference, strict=True):
            for p, q in zip(a["params"], b["params"], strict=True):
                # One has no gradient in one of the steps.
                has_gradient = step != 2 or p.ndim == 2
                p.grad = torch.randn(p.shape, generator=generator) if has_gradient else None
                q.grad = None if p.grad is None else p.grad.clone()
        adamw.step()
        peer.step()
    for a, b in zip(own, reference, strict=True):
        for p, q in zip(a["params"], b["params"], strict=True):
            assert torch.equal(p, q)
            assert adamw.state[p].keys() == peer.state[q].keys()
            for key, value in adamw.state[p].items():
                assert torch.equal(value, peer.state[q][key])


def test_gradients_are_dropped_and_what_follows_a_step_is_called() -> None:
    own = groups()
    adamw, calls = AdamW(own, lr=0.01, betas=(0.9, 0.95)), []
    adamw.after_step.append(lambda: calls.append(len(adamw.state)))
    own[1]["params"][0].grad = torch.ones(5, 8)
    adamw.step()
    assert calls == [1]
    adamw.zero_grad()
    assert own[1]["params"][0].grad is None
