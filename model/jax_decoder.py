"""The recall model in JAX, for training. Same numbers as reference_decoder.py, other shortcuts.

Fixed layers whose heads look at one exact offset are computed as shifts of their values, without
attention; the last layer is computed only for the queries that are asked. B sequences, S tokens,
H hidden, Q query heads, G key-value heads, D head_dim, N queries a sequence.
"""

import jax
import jax.numpy as jnp
import numpy as np

from build_formula_weights import EPS, GROUP, HEAD_DIM, HEAD_JOBS, KV_HEADS, Q_HEADS
from build_formula_weights import ROPE_THETA, SCALING_CONTEXT, WINDOW


def rms_norm(x, weight=1.0):
    """x [..., H] -> [..., H]."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPS) * weight


def layer_tensors(params, layer):
    """name without prefix -> tensor, of one layer."""
    prefix = f"model.layers.{layer}."
    return {name[len(prefix):]: x for name, x in params.items() if name.startswith(prefix)}


def heads(x, matrix):
    """x [..., H] through matrix [heads * D, H] -> [..., heads, D]."""
    y = x @ matrix.T
    return y.reshape(*y.shape[:-1], -1, HEAD_DIM)


def mlp(w, x):
    """Adds the gated MLP to x [..., H]."""
    normed = rms_norm(x, w["post_attention_layernorm.weight"])
    gate = jax.nn.silu(normed @ w["mlp.gate_proj.weight"].T)
    return x + (gate * (normed @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T


def shifted(x, offset):
    """x [B, S, ...] seen from `offset` tokens later; zeros before the beginning."""
    return jnp.pad(x, ((0, 0), (offset, 0), (0, 0)))[:, : x.shape[1]]


def offset_layer(w, x, jobs):
    """Attention of a fixed layer: jobs are (query head, offset) pairs. x [B, S, H]."""
    v = heads(rms_norm(x, w["input_layernorm.weight"]), w["self_attn.v_proj.weight"])
    o = w["self_attn.o_proj.weight"].reshape(x.shape[-1], Q_HEADS, HEAD_DIM)
    for head, offset in jobs:
        x = x + shifted(v[:, :, head // GROUP], offset) @ o[:, head].T
    return x


def coding_jobs(layer):
    """(query head, offset) pairs of formula layer 0 or 1."""
    return [
        (group * GROUP + member, job[0])
        for group in range(KV_HEADS)
        for member, job in enumerate(HEAD_JOBS[layer])
        if job
    ]


def rotary_tables(tokens):
    """cos and sin [S, 1, D / 2]."""
    half = HEAD_DIM // 2
    angles = np.arange(tokens)[:, None] * ROPE_THETA ** (-np.arange(half) / half)
    return jnp.array(np.cos(angles)[:, None], jnp.float32), jnp.array(
        np.sin(angles)[:, None], jnp.float32
    )


def rotate(x, tables):
    """x [B, S, heads, D], halves convention."""
    cos, sin = tables
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def window_attention(w, x):
    """Sliding-window attention without query and key norm. x [B, S, H], S a multiple of WINDOW."""
    batch, tokens, hidden = x.shape
    blocks = tokens // WINDOW
    normed = rms_norm(x, w["input_layernorm.weight"])
    tables = rotary_tables(tokens)
    q = rotate(heads(normed, w["self_attn.q_proj.weight"]), tables)
    k = rotate(heads(normed, w["self_attn.k_proj.weight"]), tables)
    v = heads(normed, w["self_attn.v_proj.weight"])

    def with_previous_block(y):  # [B, S, G, D] -> [B, blocks, 2 * WINDOW, G, D]
        y = y.reshape(batch, blocks, WINDOW, KV_HEADS, HEAD_DIM)
        before = jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))[:, :-1]
        return jnp.concatenate([before, y], axis=2)

    k, v = with_previous_block(k), with_previous_block(v)
    q = q.reshape(batch, blocks, WINDOW, KV_HEADS, GROUP, HEAD_DIM)
    logits = jnp.einsum("bnigmd,bnjgd->bngmij", q, k) / np.sqrt(HEAD_DIM)
    offset = np.arange(WINDOW)[:, None] + WINDOW - np.arange(2 * WINDOW)
    seen = np.broadcast_to((offset >= 0) & (offset < WINDOW), (blocks, WINDOW, 2 * WINDOW)).copy()
    seen[0, :, :WINDOW] = False
    logits = jnp.where(jnp.array(seen)[None, :, None, None], logits, -jnp.inf)
    out = jnp.einsum("bngmij,bnjgd->bnigmd", jax.nn.softmax(logits, -1), v)
    return x + out.reshape(batch, tokens, -1) @ w["self_attn.o_proj.weight"].T


def hidden_states(params, tokens):
    """Hidden states before the last layer: tokens [B, S] -> [B, S, H]."""
    x = params["model.embed_tokens.weight"][tokens]
    for layer in range(2):
        w = layer_tensors(params, layer)
        x = mlp(w, offset_layer(w, x, coding_jobs(layer)))
    w = layer_tensors(params, 2)
    x = mlp(w, window_attention(w, x))
    return offset_layer(layer_tensors(params, 3), x, [(0, 1)])


def last_layer_qkv(params, x, query):
    """q [B, N, Q, D] of positions query [B, N]; k, v [B, S, G, D]; x [B, S, H]."""
    w = layer_tensors(params, 4)
    normed = rms_norm(x, w["input_layernorm.weight"])
    asked = jnp.take_along_axis(normed, query[..., None], axis=1)
    q = rms_norm(heads(asked, w["self_attn.q_proj.weight"]), w["self_attn.q_norm.weight"])
    k = rms_norm(heads(normed, w["self_attn.k_proj.weight"]), w["self_attn.k_norm.weight"])
    attended = (query + 1)[..., None, None].astype(jnp.float32)
    scale = jnp.maximum(1.0, jnp.log(attended) / np.log(SCALING_CONTEXT)) / np.sqrt(HEAD_DIM)
    return q * scale, k, heads(normed, w["self_attn.v_proj.weight"])


def answer_logits(params, x, query, attention, v):
    """Vocabulary logits [B, N, vocab]; attention [B, N, G, M, S] over the own sequence."""
    w = layer_tensors(params, 4)
    out = jnp.einsum("bngms,bsgd->bngmd", attention, v).reshape(*query.shape, -1)
    x = jnp.take_along_axis(x, query[..., None], axis=1) + out @ w["self_attn.o_proj.weight"].T
    return rms_norm(x, params["model.norm.weight"]) @ params["lm_head.weight"].T
