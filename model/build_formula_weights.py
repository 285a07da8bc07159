"""Weights by formula for the recall model: no training, every head has one stated job.

The hidden vector of a token has five sections:

    constant [8]   the same for every token; sliding heads make their position-only queries of it
    byte [60]      embedding of the token's byte, never changed
    code [96]      stands for the latest bytes
    previous [96]  the code of the token before, without that token's own byte
    answer [60]    written by the last layer, read by lm_head

Sliding layer 0 adds P_i code(t - i) for i = 1, 2, 3 (4 bytes), layer 1 for 4, 8, 12 (16 bytes),
layer 2 for 16 at a quarter of the weight (32 bytes), with P_i random orthogonal matrices, and
writes the same sum seen from t - 1 into `previous`. Rotation makes a head look at one exact
offset: query and key are constants, and their product peaks where the rotated query meets the
key. The last layer looks for earlier tokens whose `previous` equals the `code` of the
query, and answers with their byte.

    python model/build_formula_weights.py --out model/recall
"""

import argparse
import json
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

VOCAB = 256
HEAD_DIM = 64
Q_HEADS = 8
KV_HEADS = 2
GROUP = Q_HEADS // KV_HEADS
WINDOW = 24
ROPE_THETA = 1000.0
EPS = 1e-6

CONSTANT = slice(0, 8)
BYTE = slice(8, 68)
CODE = slice(68, 164)
PREVIOUS = slice(164, 260)
ANSWER = slice(260, 320)
HIDDEN = 320
BYTE_DIM = BYTE.stop - BYTE.start
CODE_DIM = CODE.stop - CODE.start

CONSTANT_ENERGY = 32.0  # squared norm of the constant section: keeps RMS norm nearly constant
OFFSET_LOGIT_GAP = 25.0  # nats between a sliding head's own offset and the best other one
MATCH_LOGIT = 80.0  # logit of equal codes at up to SCALING_CONTEXT tokens
SCALING_CONTEXT = 1024
ANSWER_NORM = 4.0  # norm of the answer section when one byte has all the weight
ANSWER_LOGIT = 20.0  # lm_head logit of that byte
FAR_WEIGHT = 0.25  # weight of bytes 16 to 31 against 1 for the latest 16

# Per sliding layer, per query head of each group: (offset, target section, weight) or None.
HEAD_JOBS = [
    [(1, CODE, 1.0), (2, CODE, 1.0), (3, CODE, 1.0), None],
    [(4, CODE, 1.0), (8, CODE, 1.0), (12, CODE, 1.0), None],
    [(16, CODE, FAR_WEIGHT), (1, PREVIOUS, 1.0), (17, PREVIOUS, FAR_WEIGHT), None],
]
# Squared norm of the code section before each layer.
CODE_ENERGY = [1.0, 4.0, 16.0, 16.0 + 16.0 * FAR_WEIGHT**2]
SLIDING_LAYERS = len(HEAD_JOBS)


def random_orthogonal(rng, rows, columns):
    """Matrix [rows, columns] with orthonormal rows or columns, whichever are fewer."""
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    basis = np.linalg.qr(tall)[0]
    return basis if rows >= columns else basis.T


def unit_rows(rng, rows, columns):
    """Random unit vectors [rows, columns]."""
    x = rng.standard_normal((rows, columns))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def offset_spectrum(window, half, theta, steps=20_000, rate=0.05):
    """Share of each rotary frequency [half], summing to 1, and the gap it reaches.

    Maximises min over d in 1 .. window - 1 of sum_f share_f (1 - cos(d * frequency_f)), the
    distance between a head's offset and its neighbours, as a two-player game.
    """
    frequencies = theta ** (-np.arange(half) / half)
    loss = 1 - np.cos(np.arange(1, window)[:, None] * frequencies)  # [window - 1, half]
    player, opponent = np.zeros(half), np.zeros(window - 1)
    average = np.zeros(half)
    for _ in range(steps):
        shares = np.exp(player - player.max())
        shares /= shares.sum()
        weights = np.exp(opponent - opponent.max())
        weights /= weights.sum()
        player += rate * weights @ loss
        opponent -= rate * loss @ shares
        average += shares / steps
    average = np.where(average < 0.005, 0, average)
    average /= average.sum()
    return average, float((loss @ average).min())


def offset_query(spectrum, offset, theta):
    """Query [HEAD_DIM] whose rotated product with the offset-0 key peaks `offset` tokens back."""
    half = len(spectrum)
    angles = offset * theta ** (-np.arange(half) / half)
    amplitude = np.sqrt(spectrum)
    return np.concatenate([amplitude * np.cos(angles), -amplitude * np.sin(angles)])


def rms_before(layer, extra=0.0):
    """Nominal root mean square of the hidden vector entering `layer`."""
    previous = CODE_ENERGY[3] if layer == SLIDING_LAYERS else 0.0
    return np.sqrt((CONSTANT_ENERGY + 1 + CODE_ENERGY[layer] + previous + extra) / HIDDEN)


def value_slices():
    """Which code dimensions each kv head carries through the sliding layers."""
    return [slice(0, HEAD_DIM), slice(HEAD_DIM, CODE_DIM)]


def sliding_layer(layer, spectrum, gap, moves):
    """Tensors of one sliding layer, without the name prefix; moves: offset -> P [96, 96]."""
    q = np.zeros((Q_HEADS, HEAD_DIM, HIDDEN))
    k = np.zeros((KV_HEADS, HEAD_DIM, HIDDEN))
    v = np.zeros((KV_HEADS, HEAD_DIM, HIDDEN))
    o = np.zeros((HIDDEN, Q_HEADS, HEAD_DIM))
    k[:, :, CONSTANT] = offset_query(spectrum, 0, ROPE_THETA)[:, None]
    code_dims = np.arange(CODE.start, CODE.stop)
    for kv_head, part in enumerate(value_slices()):
        carried = code_dims[part]
        v[kv_head, np.arange(len(carried)), carried] = 1
        for member, job in enumerate(HEAD_JOBS[layer]):
            head = kv_head * GROUP + member
            offset = job[0] if job else 0
            q[head][:, CONSTANT] = offset_query(spectrum, offset, ROPE_THETA)[:, None]
            if job:
                _, section, weight = job
                move = weight * rms_before(layer) * moves[offset][:, part]
                o[section, head, : len(carried)] = move
    scale = np.sqrt(OFFSET_LOGIT_GAP / gap / np.sqrt(HEAD_DIM))
    return {
        "self_attn.q_proj.weight": q.reshape(-1, HIDDEN),
        "self_attn.k_proj.weight": k.reshape(-1, HIDDEN),
        "self_attn.v_proj.weight": v.reshape(-1, HIDDEN),
        "self_attn.o_proj.weight": o.reshape(HIDDEN, -1),
        "self_attn.q_norm.weight": np.full(HEAD_DIM, scale),
        "self_attn.k_norm.weight": np.full(HEAD_DIM, scale),
        "input_layernorm.weight": np.ones(HIDDEN),
        "post_attention_layernorm.weight": np.ones(HIDDEN),
    }


def matching_layer(rng):
    """Tensors of the last layer: code against previous, the byte as value."""
    q = np.zeros((Q_HEADS, HEAD_DIM, HIDDEN))
    k = np.zeros((KV_HEADS, HEAD_DIM, HIDDEN))
    v = np.zeros((KV_HEADS, HEAD_DIM, HIDDEN))
    o = np.zeros((HIDDEN, Q_HEADS, HEAD_DIM))
    gain = ANSWER_NORM * rms_before(SLIDING_LAYERS) / Q_HEADS
    for kv_head in range(KV_HEADS):
        view = random_orthogonal(rng, HEAD_DIM, CODE_DIM)
        k[kv_head][:, PREVIOUS] = view
        turn = random_orthogonal(rng, HEAD_DIM, BYTE_DIM)
        v[kv_head][:, BYTE] = turn
        for member in range(GROUP):
            head = kv_head * GROUP + member
            q[head][:, CODE] = view
            o[ANSWER, head] = gain * turn.T
    return {
        "self_attn.q_proj.weight": q.reshape(-1, HIDDEN),
        "self_attn.k_proj.weight": k.reshape(-1, HIDDEN),
        "self_attn.v_proj.weight": v.reshape(-1, HIDDEN),
        "self_attn.o_proj.weight": o.reshape(HIDDEN, -1),
        "self_attn.q_norm.weight": np.full(HEAD_DIM, MATCH_LOGIT / np.sqrt(HEAD_DIM)),
        "self_attn.k_norm.weight": np.ones(HEAD_DIM),
        "input_layernorm.weight": np.ones(HIDDEN),
        "post_attention_layernorm.weight": np.ones(HIDDEN),
    }


def formula_tensors(seed=0):
    """All tensors of the model, float32, under their Hugging Face names."""
    rng = np.random.default_rng(seed)
    spectrum, gap = offset_spectrum(WINDOW, HEAD_DIM // 2, ROPE_THETA)
    letters = unit_rows(rng, VOCAB, BYTE_DIM)
    embed = np.zeros((VOCAB, HIDDEN))
    embed[:, CONSTANT] = np.sqrt(CONSTANT_ENERGY / 8)
    embed[:, BYTE] = letters
    embed[:, CODE] = unit_rows(rng, VOCAB, CODE_DIM)
    moves = {i: random_orthogonal(rng, CODE_DIM, CODE_DIM) for i in (2, 3, 4, 8, 12, 16)}
    first_move = random_orthogonal(rng, CODE_DIM, CODE_DIM)
    lm_head = np.zeros((VOCAB, HIDDEN))
    answered_rms = rms_before(SLIDING_LAYERS, ANSWER_NORM**2)
    lm_head[:, ANSWER] = letters * ANSWER_LOGIT * answered_rms / ANSWER_NORM
    tensors = {
        "model.embed_tokens.weight": embed,
        "model.norm.weight": np.ones(HIDDEN),
        "lm_head.weight": lm_head,
    }
    for layer in range(SLIDING_LAYERS + 1):
        if layer < SLIDING_LAYERS - 1:
            part = sliding_layer(layer, spectrum, gap, {**moves, 1: first_move})
        elif layer < SLIDING_LAYERS:
            shifted = {16: moves[16], 1: np.eye(CODE_DIM), 17: moves[16]}
            part = sliding_layer(layer, spectrum, gap, shifted)
        else:
            part = matching_layer(rng)
        tensors.update({f"model.layers.{layer}.{name}": x for name, x in part.items()})
    return {name: x.astype(np.float32) for name, x in tensors.items()}


def formula_config(intermediate=0):
    """config.json of the model; every layer without MLP unless intermediate is given."""
    layers = SLIDING_LAYERS + 1
    dense = ["dense"] * SLIDING_LAYERS if intermediate else ["none"] * SLIDING_LAYERS
    return {
        "architectures": ["AtticRecallForCausalLM"],
        "model_type": "attic_recall",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": Q_HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention"] * SLIDING_LAYERS + ["full_attention"],
        "no_rope_layers": [1] * SLIDING_LAYERS + [0],
        "mlp_layer_types": [*dense, "none"],
        "log_length_scaling_training_context": SCALING_CONTEXT,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4_194_304,
        "torch_dtype": "bfloat16",
    }


def save_model(folder, config, tensors):
    """Writes config.json and model.safetensors (bfloat16 if the config says so) to folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = ml_dtypes.bfloat16 if config["torch_dtype"] == "bfloat16" else np.float32
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    stored = {name: np.ascontiguousarray(x.astype(kind)) for name, x in sorted(tensors.items())}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "recall")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tensors = formula_tensors(args.seed)
    save_model(args.out, formula_config(), tensors)
    print(f"{sum(x.size for x in tensors.values())} parameters, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
