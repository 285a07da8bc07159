"""What training starts from: formula layers, room to learn, and the exact training layout.

Five layers. The hidden vector has the sections of build_formula_weights.py with other widths, and
`match`, which the last layer compares:

    layer 0   sliding, formula, fixed: code of the last 4 bytes; its MLP makes random products of
              it, fixed features of 4-byte words, into `previous` at small norm
    layer 1   sliding, formula, fixed: code of the last 16 bytes, a view of it also into `match`;
              its MLP is trained
    layer 2   sliding, content and position, trained: gathers features of the name into `match`;
              its MLP is trained
    layer 3   sliding, formula, fixed: `previous` gets `match` of the token before
    layer 4   full attention, trained: `match` of the query against `previous` of earlier tokens

A key is the shifted match of the token before, so that one learned `match` serves both sides.
"""

import numpy as np

import build_formula_weights as formula
from build_formula_weights import CODE, CODE_DIM, CONSTANT, GROUP, HEAD_DIM, HIDDEN
from build_formula_weights import KV_HEADS, Q_HEADS
from reference_decoder import Decoder, rms_norm

LAYERS = 5
SHIFT_LAYER = 3
INTERMEDIATE = 192
BYTE = np.arange(8, 52)
MATCH = np.arange(164, 228)
PREVIOUS = np.concatenate([np.arange(52, 68), np.arange(228, 276)])
ANSWER = np.arange(276, 320)
POSITION_WEIGHT = 0.3  # of the 16-byte code inside match; the code's norm is 4
GATHERED_NORM = 2.0  # of what layer 2 adds to match at first
FEATURE_NORM = 0.3  # of the 4-byte features of layer 0's MLP
TRAINED = ("model.layers.1.mlp.", "model.layers.1.post_attention", "model.layers.2.",
           "model.layers.4.", "model.norm.", "lm_head.")


def config():
    """config.json of the trained model."""
    out = formula.formula_config(INTERMEDIATE)
    out["num_hidden_layers"] = LAYERS
    out["layer_types"] = ["sliding_attention"] * (LAYERS - 1) + ["full_attention"]
    out["no_rope_layers"] = [1] * (LAYERS - 1) + [0]
    out["mlp_layer_types"] = ["dense", "dense", "dense", "none", "none"]
    return out


def is_trained(name):
    """True if training changes the tensor of this name."""
    return name.startswith(TRAINED)


def empty_attention():
    """Zero q [Q, D, H], k and v [G, D, H], o [H, Q, D]."""
    kv = (KV_HEADS, HEAD_DIM, HIDDEN)
    return (np.zeros((Q_HEADS, HEAD_DIM, HIDDEN)), np.zeros(kv), np.zeros(kv),
            np.zeros((HIDDEN, Q_HEADS, HEAD_DIM)))


def pack(q, k, v, o, q_norm=None, k_norm=None):
    """Tensors of one layer's attention and norms, without the name prefix."""
    out = {
        "self_attn.q_proj.weight": q.reshape(-1, HIDDEN),
        "self_attn.k_proj.weight": k.reshape(-1, HIDDEN),
        "self_attn.v_proj.weight": v.reshape(-1, HIDDEN),
        "self_attn.o_proj.weight": o.reshape(HIDDEN, -1),
        "input_layernorm.weight": np.ones(HIDDEN),
        "post_attention_layernorm.weight": np.ones(HIDDEN),
    }
    for name, scale in (("q", q_norm), ("k", k_norm)):
        if scale is not None:
            out[f"self_attn.{name}_norm.weight"] = np.full(HEAD_DIM, scale)
    return out


def nominal_rms(code_energy, more=0.0):
    """Nominal root mean square of a hidden vector."""
    return np.sqrt((formula.CONSTANT_ENERGY + 1 + code_energy + more) / HIDDEN)


def coding_layer(layer, spectrum, gap, moves, view):
    """Layer 0 or 1 of the formula model, its output also seen through view [64, 96] in match."""
    part = formula.sliding_layer(layer, spectrum, gap, moves)
    o = part["self_attn.o_proj.weight"]
    o[MATCH] = POSITION_WEIGHT * view @ o[CODE]
    return part


def feature_mlp(rng):
    """Random products of the 4-byte code into `previous`."""
    gate, up = np.zeros((2, INTERMEDIATE, HIDDEN))
    gate[:, CODE] = formula.unit_rows(rng, INTERMEDIATE, CODE_DIM) * 2
    up[:, CODE] = formula.unit_rows(rng, INTERMEDIATE, CODE_DIM) * 2
    down = np.zeros((HIDDEN, INTERMEDIATE))
    down[PREVIOUS] = rng.standard_normal((len(PREVIOUS), INTERMEDIATE))
    down *= FEATURE_NORM / np.sqrt(INTERMEDIATE * len(PREVIOUS)) / 1.5
    return {"mlp.gate_proj.weight": gate, "mlp.up_proj.weight": up, "mlp.down_proj.weight": down}


def quiet_mlp(rng):
    """A random MLP that adds almost nothing before it is trained."""
    scale = 1 / np.sqrt(HIDDEN)
    return {
        "mlp.gate_proj.weight": scale * rng.standard_normal((INTERMEDIATE, HIDDEN)),
        "mlp.up_proj.weight": scale * rng.standard_normal((INTERMEDIATE, HIDDEN)),
        "mlp.down_proj.weight": 0.0005 * rng.standard_normal((HIDDEN, INTERMEDIATE)),
    }


def gathering_layer(rng):
    """Layer 2: almost uniform attention that sums features of the window into match.

    kv head 0 carries the features, kv head 1 a view of the 16-byte code. No query or key norm:
    each head finds its own sharpness.
    """
    q, k, v, o = empty_attention()
    q += 0.03 * rng.standard_normal(q.shape)
    k += 0.03 * rng.standard_normal(k.shape)
    rms = nominal_rms(16.0)
    v[0][np.arange(HEAD_DIM), PREVIOUS] = 1
    v[1][:, CODE] = formula.random_orthogonal(rng, HEAD_DIM, CODE_DIM)
    gain = GATHERED_NORM * rms / FEATURE_NORM / GROUP * np.sqrt(formula.WINDOW)
    turn = formula.random_orthogonal(rng, HEAD_DIM, HEAD_DIM)
    for head in range(Q_HEADS):
        noise = rng.standard_normal((HEAD_DIM, HEAD_DIM)) / 8
        o[MATCH, head] = gain * (turn + 0.2 * noise) if head < GROUP else 0.05 * noise
    return pack(q, k, v, o)


def shift_layer(spectrum, gap):
    """Layer 3: previous(t) += match(t - 1)."""
    q, k, v, o = empty_attention()
    k[:, :, CONSTANT] = formula.offset_query(spectrum, 0, formula.ROPE_THETA)[:, None]
    offsets = [1] + [0] * (Q_HEADS - 1)
    for head, offset in enumerate(offsets):
        query = formula.offset_query(spectrum, offset, formula.ROPE_THETA)
        q[head][:, CONSTANT] = query[:, None]
    v[0][np.arange(HEAD_DIM), MATCH] = 1
    o[PREVIOUS, 0, np.arange(HEAD_DIM)] = nominal_rms(16.0, 8.0)
    scale = np.sqrt(formula.OFFSET_LOGIT_GAP / gap / np.sqrt(HEAD_DIM))
    return pack(q, k, v, o, scale, scale)


def answering_layer(rng, reader):
    """Layer 4; reader [44, 44] turns the byte section into the answer section."""
    q, k, v, o = empty_attention()
    gain = formula.ANSWER_NORM * nominal_rms(16.0, 16.0) / Q_HEADS
    for kv_head in range(KV_HEADS):
        view = formula.random_orthogonal(rng, HEAD_DIM, HEAD_DIM)
        k[kv_head][:, PREVIOUS] = view
        v[kv_head][: len(BYTE), BYTE] = reader
        for member in range(GROUP):
            head = kv_head * GROUP + member
            q[head][:, MATCH] = view + 0.03 * rng.standard_normal(view.shape)
            o[ANSWER, head, np.arange(len(ANSWER))] = gain
    return pack(q, k, v, o, formula.MATCH_LOGIT / np.sqrt(HEAD_DIM), 1.0)


def centre_features(tensors, text):
    """Takes the mean over text [n] of the gathered features out of layer 2's values."""
    decoder = Decoder(config(), tensors, len(text))
    x = tensors["model.embed_tokens.weight"][text]
    for layer in range(2):
        x = decoder.block(layer, x, len(x))
    normed = rms_norm(x, 1.0, formula.EPS)
    values = tensors["model.layers.2.self_attn.v_proj.weight"]
    constant = normed[:, CONSTANT].mean()
    values[:, CONSTANT] = -(normed @ values.T).mean(0)[:, None] / (8 * constant)


def initial_tensors(text, seed=0):
    """All tensors, float32, under their Hugging Face names; text [n] gives feature means."""
    rng = np.random.default_rng(seed)
    spectrum, gap = formula.offset_spectrum(formula.WINDOW, HEAD_DIM // 2, formula.ROPE_THETA)
    moves = {i: formula.random_orthogonal(rng, CODE_DIM, CODE_DIM) for i in (1, 2, 3, 4, 8, 12)}
    view = formula.random_orthogonal(rng, HEAD_DIM, CODE_DIM)
    reader = formula.random_orthogonal(rng, len(ANSWER), len(BYTE))
    letters = formula.unit_rows(rng, formula.VOCAB, len(BYTE))
    embed = np.zeros((formula.VOCAB, HIDDEN))
    embed[:, CONSTANT] = np.sqrt(formula.CONSTANT_ENERGY / 8)
    embed[:, BYTE] = letters
    embed[:, CODE] = formula.unit_rows(rng, formula.VOCAB, CODE_DIM)
    embed[:, MATCH] = POSITION_WEIGHT * embed[:, CODE] @ view.T
    lm_head = np.zeros((formula.VOCAB, HIDDEN))
    scale = formula.ANSWER_LOGIT * nominal_rms(16.0, 32.0) / formula.ANSWER_NORM
    lm_head[:, ANSWER] = letters @ reader.T * scale
    layers = [
        {**coding_layer(0, spectrum, gap, moves, view), **feature_mlp(rng)},
        {**coding_layer(1, spectrum, gap, moves, view), **quiet_mlp(rng)},
        {**gathering_layer(rng), **quiet_mlp(rng)},
        shift_layer(spectrum, gap),
        answering_layer(rng, reader),
    ]
    tensors = {
        "model.embed_tokens.weight": embed,
        "model.norm.weight": np.ones(HIDDEN),
        "lm_head.weight": lm_head,
    }
    for layer, part in enumerate(layers):
        tensors.update({f"model.layers.{layer}.{name}": x for name, x in part.items()})
    tensors = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    centre_features(tensors, text)
    return tensors
