"""
Muon, an optimizer for the matrices of a network (Jordan et al. 2024).
"""

import torch


def newton_schulz(steps):
    """
    Matrices (N, rows, columns) with their singular values brought close to 1, all at once.

    Newton-Schulz: an odd polynomial of a matrix is that polynomial of its singular values, and
    this one, applied again and again, lifts all of 0..1 to about 1.
    """
    tall = steps.size(1) > steps.size(2)
    x = steps.mT if tall else steps
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """
    Momentum made orthogonal (Jordan et al. 2024): a step moves a matrix as far in its rare
    directions as in its common ones. A small model learns as much from half the text; the step
    is as long as AdamW's would be (Liu et al. 2025, arXiv 2502.16982), so the same lr serves.
    """

    def __init__(self, matrices, lr, weight_decay, momentum=0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            # matrices of one shape go through together
            for shape in sorted({p.shape for p in group["params"]}):
                self.move([p for p in group["params"] if p.shape == shape], **group)

    def move(self, matrices, lr, weight_decay, momentum, **_):
        """One step for matrices of the same shape."""
        for p in matrices:
            self.state[p].setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 1 - momentum)
        ahead = [p.grad.lerp(self.state[p]["mean"], momentum) for p in matrices]
        length = 0.2 * max(matrices[0].shape) ** 0.5
        for p, step in zip(matrices, newton_schulz(torch.stack(ahead))):
            p.mul_(1 - lr * weight_decay).sub_(step, alpha=lr * length)
