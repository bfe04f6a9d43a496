"""Mixtures of experts: stacked weights and module lists, soft and top-k routing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseExperts(nn.Module):
    """All experts run (bmm over stacked weights), mixed by a softmax over fixed n_experts."""

    def __init__(self, d: int, n_experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(d, n_experts, bias=False)
        self.w1 = nn.Parameter(torch.randn(n_experts, d, 2 * d) * d**-0.5)
        self.w2 = nn.Parameter(torch.randn(n_experts, 2 * d, d) * (2 * d) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1)
        h = torch.bmm(x.unsqueeze(0).expand(len(self.w1), -1, -1), self.w1)
        y = torch.bmm(F.gelu(h), self.w2)
        return (gates.t().unsqueeze(-1) * y).sum(0)


class EinsumExperts(nn.Module):
    """The same by einsum, biases stacked as well."""

    def __init__(self, d: int, n_experts: int) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(d, n_experts) * 0.02)
        self.w_in = nn.Parameter(torch.randn(n_experts, d, 2 * d) * 0.02)
        self.b_in = nn.Parameter(torch.zeros(n_experts, 2 * d))
        self.w_out = nn.Parameter(torch.randn(n_experts, 2 * d, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.einsum("nd,de->ne", x, self.router).softmax(-1)
        h = torch.einsum("nd,edf->nef", x, self.w_in) + self.b_in
        return torch.einsum("nef,efd,ne->nd", F.relu(h), self.w_out, gates)


class GatheredExperts(nn.Module):
    """Each token gathers its expert's weights: w[index]."""

    def __init__(self, d: int, n_experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(d, n_experts, bias=False)
        self.up = nn.Parameter(torch.randn(n_experts, d, d) * d**-0.5)
        self.down = nn.Parameter(torch.randn(n_experts, d, d) * d**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        weights, index = self.router(x).softmax(-1).topk(2, dim=-1)
        h = torch.einsum("nd,nkdf->nkf", x, self.up[index])
        y = torch.einsum("nkf,nkfd->nkd", F.silu(h), self.down[index])
        return (weights.unsqueeze(-1) * y).sum(1)


class Expert(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class ListedExperts(nn.Module):
    """A ModuleList, top-k routing, tokens selected by torch.where and added by index_add_."""

    def __init__(self, d: int, n_experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d, n_experts, bias=False)
        self.experts = nn.ModuleList([Expert(d) for _ in range(n_experts)])

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).topk(2)
        weights = F.softmax(weights, dim=-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, nth = torch.where(chosen == i)
            out.index_add_(0, rows, weights[rows, nth, None] * expert(x[rows]))
        return out


class MaskedExperts(nn.Module):
    """A ModuleList where every expert sees every token and a mask selects."""

    def __init__(self, d: int, n_experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d, n_experts)
        self.experts = nn.ModuleList([Expert(d) for _ in range(n_experts)])
        self.shared = Expert(d)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gate(x)
        kept = torch.full_like(logits, float("-inf"))
        top, index = logits.topk(2, dim=-1)
        gates = kept.scatter(-1, index, top).softmax(-1)
        y = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (gates.unsqueeze(-1) * y).sum(-2) + self.shared(x)


class SwitchExperts(nn.Module):
    """Switch Transformer's one-hot dispatch and combine with a capacity."""

    def __init__(self, d: int, n_experts: int, capacity: int = 16) -> None:
        super().__init__()
        self.n_experts, self.capacity = n_experts, capacity
        self.gate = nn.Linear(d, n_experts, bias=False)
        self.wi = nn.Parameter(torch.randn(n_experts, d, 2 * d) * d**-0.5)
        self.wo = nn.Parameter(torch.randn(n_experts, 2 * d, d) * (2 * d) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        probs = self.gate(x).softmax(-1)
        gate, index = probs.max(-1)
        onehot = F.one_hot(index, self.n_experts).to(x.dtype)
        place = (onehot.cumsum(0) - 1) * onehot
        slot = F.one_hot(place.sum(-1).long().clamp(max=self.capacity - 1), self.capacity)
        dispatch = onehot.unsqueeze(-1) * slot.unsqueeze(1)
        inside = torch.einsum("nec,nd->ecd", dispatch, x)
        h = F.relu(torch.einsum("ecd,edf->ecf", inside, self.wi))
        y = torch.einsum("ecf,efd->ecd", h, self.wo)
        return torch.einsum("nec,ecd->nd", dispatch * gate[:, None, None], y)


class _MoE(nn.Module):
    experts_class: type[nn.Module]

    def __init__(
        self, width: int = 32, n_experts: int = 4, n_in: int = 12, n_out: int = 10
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(n_in, width)
        self.norm = nn.LayerNorm(width)
        self.moe = self.experts_class(width, n_experts)
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.moe(self.norm(x)))


class DenseMoE(_MoE):
    experts_class = DenseExperts


class EinsumMoE(_MoE):
    experts_class = EinsumExperts


class GatheredMoE(_MoE):
    experts_class = GatheredExperts


class ListedMoE(_MoE):
    experts_class = ListedExperts


class MaskedMoE(_MoE):
    experts_class = MaskedExperts


class SwitchMoE(_MoE):
    experts_class = SwitchExperts
