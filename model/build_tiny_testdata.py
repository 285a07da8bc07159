"""A small random model and its logits in float64: golden data for the C++ worker's tests.

    python model/build_tiny_testdata.py --out model/testdata/tiny

Writes config.json, model.safetensors (float32), tokens.npy (int32 [T]) and logits.npy
(float32 [T, vocab]). The model has everything the architecture allows: grouped queries, query and
key norms on some layers only, an MLP on some layers only, and a sequence longer than the window
and than the length-scaling context.
"""

import argparse
import pathlib

import numpy as np

from build_formula_weights import save_model
from reference_decoder import Decoder

TOKENS = 96
LAYERS = 3
HIDDEN, INTERMEDIATE, HEAD_DIM, Q_HEADS, KV_HEADS, VOCAB = 32, 48, 8, 4, 2, 256
NORMED_LAYERS = (0, 2)
DENSE_LAYERS = (0, 1)


def tiny_config():
    """config.json of the tiny model."""
    return {
        "architectures": ["AtticRecallForCausalLM"],
        "model_type": "attic_recall",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": Q_HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000.0,
        "sliding_window": 12,
        "layer_types": ["sliding_attention"] * (LAYERS - 1) + ["full_attention"],
        "no_rope_layers": [1] * (LAYERS - 1) + [0],
        "mlp_layer_types": ["dense" if i in DENSE_LAYERS else "none" for i in range(LAYERS)],
        "log_length_scaling_training_context": 32,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
        "torch_dtype": "float32",
    }


def tiny_tensors(rng):
    """Random float32 tensors of the tiny model, under their Hugging Face names."""

    def matrix(rows, columns):
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns) * 1.5).astype(np.float32)

    def gain(size):
        return (1 + 0.3 * rng.standard_normal(size)).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB, HIDDEN) * 4,
        "model.norm.weight": gain(HIDDEN),
        "lm_head.weight": matrix(VOCAB, HIDDEN),
    }
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        attention = name + "self_attn."
        tensors[name + "input_layernorm.weight"] = gain(HIDDEN)
        tensors[attention + "q_proj.weight"] = matrix(Q_HEADS * HEAD_DIM, HIDDEN)
        tensors[attention + "k_proj.weight"] = matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        tensors[attention + "v_proj.weight"] = matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        tensors[attention + "o_proj.weight"] = matrix(HIDDEN, Q_HEADS * HEAD_DIM)
        if layer in NORMED_LAYERS:
            tensors[attention + "q_norm.weight"] = gain(HEAD_DIM)
            tensors[attention + "k_norm.weight"] = gain(HEAD_DIM)
        if layer in DENSE_LAYERS:
            tensors[name + "post_attention_layernorm.weight"] = gain(HIDDEN)
            tensors[name + "mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
            tensors[name + "mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
            tensors[name + "mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
    return tensors


def golden_logits(config, tensors, tokens, step):
    """Logits float64 [T, vocab], the tokens appended `step` at a time."""
    wide = {name: x.astype(np.float64) for name, x in tensors.items()}
    decoder = Decoder(config, wide, len(tokens))
    return np.concatenate(
        [decoder.forward(tokens[i : i + step]) for i in range(0, len(tokens), step)]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "testdata" / "tiny")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    config, tensors = tiny_config(), tiny_tensors(rng)
    tokens = rng.integers(0, VOCAB, TOKENS).astype(np.int32)
    logits = golden_logits(config, tensors, tokens, TOKENS)
    for step in (1, 7, 40):
        difference = np.abs(golden_logits(config, tensors, tokens, step) - logits).max()
        print(f"chunks of {step}: largest difference {difference:.1e}")
        assert difference < 1e-9
    out = pathlib.Path(args.out)
    save_model(out, config, tensors)
    np.save(out / "tokens.npy", tokens)
    np.save(out / "logits.npy", logits.astype(np.float32))
    print(f"{sum(x.size for x in tensors.values())} parameters, logits {logits.min():.2f} to "
          f"{logits.max():.2f}")


if __name__ == "__main__":
    main()
