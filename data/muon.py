"""
Muon, an optimizer for the matrices of a network (Jordan et al. 2024).
"""

import torch


def newton_schulz(matrices):
    """
    Bring the singular values of matrices (N, rows, columns) close to 1, all matrices at once.

    Newton-Schulz: an odd polynomial of a matrix is that polynomial of its singular values, and
    this one, applied five times, brings those above 0.002 to between 0.6 and 1.3. Its coefficients
    (Jordan's) are chosen for a steep start, not to converge to exactly 1.
    """
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        # x = 3.4445 x + (-4.775 square + 2.0315 square²) x
        factor = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, factor, x, beta=3.4445)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """
    Momentum with its singular values set to about 1: a step moves a matrix as far in its rare
    directions as in its common ones. Steps are scaled to the length of AdamW's, so that the same
    learning rate serves (Liu et al. 2025, arXiv 2502.16982).
    """

    def __init__(self, matrices, lr, weight_decay, momentum=0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        """Update all matrices from their gradients."""
        for group in self.param_groups:
            # matrices of one shape go through together
            for shape in sorted({p.shape for p in group["params"]}):
                matrices = [p for p in group["params"] if p.shape == shape]
                self.step_shape(matrices, group["lr"], group["weight_decay"], group["momentum"])

    def step_shape(self, matrices, lr, weight_decay, momentum):
        """Update matrices of the same shape."""
        lookahead = []
        for p in matrices:
            mean = self.state[p].setdefault("mean", torch.zeros_like(p))
            mean.lerp_(p.grad, 1 - momentum)
            # Nesterov: the momentum as it would be after this gradient once more
            lookahead.append(p.grad.lerp(mean, momentum))
        # entries of an orthogonal matrix have a root mean square of 1 / sqrt(longer side): times
        # this it is 0.2, as in a typical step of AdamW
        length = 0.2 * max(matrices[0].shape) ** 0.5
        for p, direction in zip(matrices, newton_schulz(torch.stack(lookahead))):
            p.mul_(1 - lr * weight_decay).sub_(direction, alpha=lr * length)
