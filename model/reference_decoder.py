"""Plain NumPy decoder of the Attic recall architecture: the oracle for the C++ worker.

Llama-family blocks with sliding-window layers and full-attention layers, optional RMS norm of
queries and keys, optional rotary position encoding and optional MLP per layer. Weight matrices
are [out, in]. Shapes in comments: T tokens of a chunk, H hidden, Q query heads, G key-value
heads, D head_dim, W sliding window, n tokens held.
"""

import json
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

QUERY_BLOCK_TOKENS = 32
KEY_BLOCK_TOKENS = 131_072


def load_model(folder, dtype=np.float32):
    """Reads config.json and model.safetensors; returns (config dict, name -> array of dtype)."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    return config, {name: tensor.astype(dtype) for name, tensor in tensors.items()}


def round_to_bfloat16(array):
    """Rounds to the nearest bfloat16 value and keeps the array's own type."""
    return array.astype(np.float32).astype(ml_dtypes.bfloat16).astype(array.dtype)


def rms_norm(x, weight, eps):
    """x [..., H], weight [H] -> [..., H]."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, positions, theta):
    """Rotary encoding, halves convention: x [T, heads, D], positions [T] -> [T, heads, D].

    Angles are computed in float64: at position 10^6 a float32 angle is off by up to 0.03 radian.
    """
    half = x.shape[-1] // 2
    frequencies = float(theta) ** (-np.arange(half) / half)
    angles = positions[:, None].astype(np.float64) * frequencies
    cos = np.cos(angles)[:, None, :].astype(x.dtype)
    sin = np.sin(angles)[:, None, :].astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(logits):
    """Softmax over the last axis; -inf entries get weight zero."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sliding_attention(q, k, v, window):
    """Attention of each of the last T tokens over its window.

    q [T, Q, D] scaled; k, v [P + T, G, D] where the first P < window tokens come before the chunk.
    Token t of the chunk sees keys P + t - window + 1 .. P + t. Returns [T, Q, D].
    """
    tokens, q_heads, dim = q.shape
    kv_heads = k.shape[1]
    before = k.shape[0] - tokens
    block = QUERY_BLOCK_TOKENS
    blocks = -(-tokens // block)
    span = block + window - 1
    lead = window - 1 - before
    padding = ((lead, blocks * block - tokens), (0, 0), (0, 0))
    rows = np.arange(blocks)[:, None] * block + np.arange(span)
    k = np.pad(k, padding)[rows].transpose(0, 2, 3, 1)  # [blocks, G, D, span]
    v = np.pad(v, padding)[rows].transpose(0, 2, 1, 3)  # [blocks, G, span, D]
    q = np.pad(q, ((0, blocks * block - tokens), (0, 0), (0, 0)))
    group = q_heads // kv_heads
    q = q.reshape(blocks, block, kv_heads, group, dim).transpose(0, 2, 3, 1, 4)
    logits = q.reshape(blocks, kv_heads, group * block, dim) @ k
    logits = logits.reshape(blocks, kv_heads, group, block, span)
    offset = np.arange(span) - np.arange(block)[:, None]  # in [0, window) when visible
    visible = (offset >= 0) & (offset < window)
    exists = rows >= lead  # [blocks, span]
    # A padded query sees only padding; its own (padded) key keeps its softmax finite.
    mask = visible & exists[:, None, None, None, :]
    weights = softmax(np.where(mask, logits, -np.inf))
    out = weights.reshape(blocks, kv_heads, group * block, span) @ v
    out = out.reshape(blocks, kv_heads, group, block, dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(blocks * block, q_heads, dim)[:tokens]


def full_attention(q, k, v, first_position, scaling_context):
    """Exact causal attention over all n held tokens, with log-length scaling of the logits.

    q [T, Q, D] scaled by 1/sqrt(D), of tokens first_position .. first_position + T - 1;
    k, v [n, G, D]. Returns [T, Q, D]. Keys are read in blocks with a running maximum.
    """
    tokens, q_heads, dim = q.shape
    kv_heads = k.shape[1]
    group = q_heads // kv_heads
    attended = np.arange(first_position, first_position + tokens) + 1
    scale = np.maximum(1.0, np.log(attended) / np.log(scaling_context)).astype(q.dtype)
    q = (q * scale[:, None, None]).reshape(tokens, kv_heads, group, dim).transpose(1, 2, 0, 3)
    q = q.reshape(kv_heads, group * tokens, dim)
    maximum = np.full((kv_heads, group, tokens, 1), -np.inf, q.dtype)
    total = np.zeros_like(maximum)
    out = np.zeros((kv_heads, group, tokens, dim), q.dtype)
    for begin in range(0, int(attended[-1]), KEY_BLOCK_TOKENS):
        end = min(begin + KEY_BLOCK_TOKENS, int(attended[-1]))
        keys = k[begin:end].transpose(1, 2, 0).astype(q.dtype)
        logits = (q @ keys).reshape(kv_heads, group, tokens, end - begin)
        logits = np.where(np.arange(begin, end) < attended[:, None], logits, -np.inf)
        larger = np.maximum(maximum, logits.max(axis=-1, keepdims=True))
        weights = np.exp(logits - larger)
        values = v[begin:end].transpose(1, 0, 2).astype(q.dtype)
        part = weights.reshape(kv_heads, group * tokens, end - begin) @ values
        shrink = np.exp(maximum - larger)
        out = out * shrink + part.reshape(out.shape)
        total = total * shrink + weights.sum(axis=-1, keepdims=True)
        maximum = larger
    return (out / total).transpose(2, 0, 1, 3).reshape(tokens, q_heads, dim)


class Decoder:
    """A decoder with its KV cache. Not thread safe; one sequence at a time.

    Sliding layers hold the last window - 1 tokens, full layers hold all of them, at most
    `capacity` tokens, rounded to bfloat16 if `bfloat16_kv`.
    """

    def __init__(self, config, tensors, capacity, bfloat16_kv=False):
        self.config = config
        self.tensors = tensors
        self.bfloat16_kv = bfloat16_kv
        self.dtype = tensors["model.embed_tokens.weight"].dtype
        self.position = 0
        self.last_query = None  # [Q, D] of the latest token at the latest full layer, / sqrt(D)
        shape = (config["num_key_value_heads"], config["head_dim"])
        self.cache = []
        for kind in config["layer_types"]:
            rows = capacity if kind == "full_attention" else 0
            self.cache.append([np.zeros((rows, *shape), self.dtype) for _ in range(2)])

    def snapshot(self):
        """State to return to with restore(); full layers are truncated, not copied."""
        held = [
            None if kind == "full_attention" else list(kv)
            for kind, kv in zip(self.config["layer_types"], self.cache)
        ]
        return self.position, held

    def restore(self, state):
        """Goes back to an earlier snapshot of the same sequence."""
        self.position, held = state
        for layer, kv in enumerate(held):
            if kv is not None:
                self.cache[layer] = list(kv)

    def forward(self, tokens, logits_for="all"):
        """Appends tokens [T]. Returns logits [T, vocab], [1, vocab] for "last", None for "none".

        "last" and "none" skip the last layer's attention where its output is not asked for.
        """
        eps = self.config["rms_norm_eps"]
        x = self.tensors["model.embed_tokens.weight"][tokens]
        layers = self.config["num_hidden_layers"]
        for layer in range(layers):
            keep = {"all": len(tokens), "last": 1, "none": 0}[logits_for]
            x = self.block(layer, x, keep if layer == layers - 1 else len(tokens))
        self.position += len(tokens)
        if logits_for == "none":
            return None
        x = rms_norm(x, self.tensors["model.norm.weight"], eps)
        return x @ self.tensors["lm_head.weight"].T

    def project(self, layer, x, kind, positions):
        """Queries ("q") or keys ("k") of normed x [T, H]: normed and rotated, [T, heads, D]."""
        name = f"model.layers.{layer}.self_attn."
        dim = self.config["head_dim"]
        y = (x @ self.tensors[f"{name}{kind}_proj.weight"].T).reshape(len(x), -1, dim)
        norm = self.tensors.get(f"{name}{kind}_norm.weight")
        if norm is not None:
            y = rms_norm(y, norm, self.config["rms_norm_eps"])
        if self.config["no_rope_layers"][layer]:
            y = rotate(y, positions, self.config["rope_theta"])
        return y

    def block(self, layer, x, keep):
        """One block over x [T, H]; its keys and values are appended.

        Only the last `keep` tokens go past its attention; returns [keep, H].
        """
        name = f"model.layers.{layer}."
        weight = self.tensors
        config = self.config
        dim = config["head_dim"]
        normed = rms_norm(x, weight[name + "input_layernorm.weight"], config["rms_norm_eps"])
        positions = np.arange(self.position, self.position + len(x))
        k = self.project(layer, normed, "k", positions)
        v = (normed @ weight[name + "self_attn.v_proj.weight"].T).reshape(len(x), -1, dim)
        first = len(x) - keep
        full = config["layer_types"][layer] == "full_attention"
        if full:
            self._store(layer, k, v)
        if keep == 0:
            return x[:0]
        q = self.project(layer, normed[first:], "q", positions[first:]) / np.sqrt(dim)
        q = q.astype(self.dtype)
        if full:
            self.last_query = q[-1]
            context = config["log_length_scaling_training_context"]
            out = full_attention(q, *self.cache[layer], self.position + first, context)
        else:
            window = config["sliding_window"]
            k, v = (np.concatenate(pair) for pair in zip(self.cache[layer], (k, v)))
            out = sliding_attention(q, k, v, window)
            self.cache[layer] = [a[max(0, len(a) - window + 1) :].copy() for a in (k, v)]
        x = x[first:] + out.reshape(keep, -1) @ weight[name + "self_attn.o_proj.weight"].T
        return self._mlp(name, x)

    def _store(self, layer, k, v):
        """Writes the chunk's keys and values [T, G, D] at the current position."""
        for held, new in zip(self.cache[layer], (k, v)):
            if self.bfloat16_kv:
                new = round_to_bfloat16(new)
            held[self.position : self.position + len(new)] = new

    def _mlp(self, name, x):
        """Adds the gated MLP of block `name` to x [T, H], if the block has one."""
        if name + "mlp.gate_proj.weight" not in self.tensors:
            return x
        weight = self.tensors[name + "post_attention_layernorm.weight"]
        normed = rms_norm(x, weight, self.config["rms_norm_eps"])
        gate = normed @ self.tensors[name + "mlp.gate_proj.weight"].T
        up = normed @ self.tensors[name + "mlp.up_proj.weight"].T
        return x + (gate / (1 + np.exp(-gate)) * up) @ self.tensors[name + "mlp.down_proj.weight"].T


def prefill(decoder, tokens, chunk=16_384):
    """Appends a long token array [n] in chunks; no logits."""
    for begin in range(0, len(tokens), chunk):
        decoder.forward(tokens[begin : begin + chunk], logits_for="none")
