"""A Llama-shaped decoder: RMSNorm, grouped-query attention with rotation, SwiGLU, no biases."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-5


@dataclass
class Shape:
    vocabulary: int = 4096
    hidden: int = 256
    intermediate: int = 640
    layers: int = 4
    query_heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    theta: float = 500000.0
    training_length: int = 512

    @property
    def group(self):
        return self.query_heads // self.kv_heads


def rotation(positions, shape):
    """(cos, sin), each (..., 1, tokens, head_dim / 2); the angles are computed in float64."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = positions.double()[..., None] * shape.theta**-exponents.to(positions.device)
    return angles.cos().float().unsqueeze(-3), angles.sin().float().unsqueeze(-3)


def rotate(x, cos, sin):
    """Rotates (batch, heads, tokens, head_dim): element i with element i + head_dim / 2."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def length_scaling(positions, shape):
    """max(1, log n / log training_length) for the n tokens that a position attends to: it keeps
    softmax from spreading over more keys than in training."""
    counts = (positions + 1).double()
    return (counts.log() / math.log(shape.training_length)).clamp(min=1).float()


def causal_attention(queries, keys, values):
    """(batch, query heads, tokens, head_dim) over keys and values of the kv heads."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        query_size = shape.query_heads * shape.head_dim
        kv_size = shape.kv_heads * shape.head_dim
        self.attention_norm = nn.RMSNorm(shape.hidden, eps=EPSILON)
        self.q_proj = nn.Linear(shape.hidden, query_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.o_proj = nn.Linear(query_size, shape.hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(shape.hidden, eps=EPSILON)
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def heads(self, x, cos, sin):
        """Rotated queries, rotated keys and values of the hidden states x (batch, tokens, hidden),
        each (batch, heads, tokens, head_dim)."""
        x = self.attention_norm(x)
        queries, keys, values = (
            projection(x).unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj))
        return rotate(queries, cos, sin), rotate(keys, cos, sin), values

    def finish(self, x, attended):
        """The layer's output from its input and the attention's."""
        x = x + self.o_proj(attended.transpose(1, 2).flatten(-2))
        y = self.mlp_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))

    def forward(self, x, cos, sin):
        return self.finish(x, causal_attention(*self.heads(x, cos, sin)))


class Decoder(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=EPSILON)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                output = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / ((2 * shape.layers) ** 0.5 if output else 1))

    def forward(self, tokens, positions):
        """Logits (batch, tokens, vocabulary) of token ids and their positions."""
        x = self.embedding(tokens)
        cos, sin = rotation(positions, self.shape)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))
