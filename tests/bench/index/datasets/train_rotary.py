"""Trains the decoder whose vectors the `rotary` set holds, on the machine's own text.

    python -m datasets.train_rotary [--minutes 25] [--device cuda --hidden 512 ...]

Writes rotary_model/ in the cache: config.json, model.safetensors, tokenizer.json,
training_log.txt. Sequences are short, and their positions are such that long distances occur too:
one half keeps consecutive positions from a random offset, the other is cut into stretches that lie
in order but far apart (PoSE, arXiv 2309.10400; compare randomised positions, arXiv 2305.16843).
"""

import argparse
import json
import time
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .common import cache_folder
from .rotary_model import Decoder, Shape
from .text import corpus

POSITIONS = 200_000
STRETCHES = 8
BEGIN = "<begin>"
TOKENIZER_CHARACTERS = 20_000_000


def train_tokenizer(texts, vocabulary):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BEGIN], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    total = np.cumsum([len(text) for text in texts])
    count = int(np.searchsorted(total, TOKENIZER_CHARACTERS)) + 1
    tokenizer.train_from_iterator(texts[:count], trainer)
    return tokenizer


def encode(tokenizer, texts, tokens_max):
    """The texts one after the other, as one array of at most tokens_max ids."""
    parts, count = [], 0
    for text in texts:
        if count >= tokens_max:
            break
        parts.append(np.array(tokenizer.encode(text + "\n\n").ids, dtype=np.uint16))
        count += len(parts[-1])
    return np.concatenate(parts)[:tokens_max]


def draw_positions(generator, batch, length):
    """(batch, length): even rows consecutive, odd rows in stretches with gaps between them."""
    rows = []
    for row in range(batch):
        stretches = 1 + (row % 2) * int(generator.integers(1, STRETCHES))
        gaps = np.sort(generator.integers(POSITIONS - length, size=stretches))
        cuts = np.sort(generator.integers(1, length, size=stretches - 1))
        rows.append(np.arange(length) + gaps[np.searchsorted(cuts, np.arange(length), "right")])
    return torch.from_numpy(np.stack(rows))


def draw_batch(generator, ids, batch, length):
    """Token ids (batch, length + 1) of random pieces, each after a begin token."""
    starts = generator.integers(len(ids) - length, size=batch)
    pieces = np.stack([ids[start:start + length] for start in starts]).astype(np.int64)
    return torch.from_numpy(np.pad(pieces, ((0, 0), (1, 0))))  # the begin token's id is 0


def loss_of(model, tokens, positions, device):
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = model(tokens[:, :-1], positions)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model, ids, options):
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(8):
        tokens = draw_batch(generator, ids, options.batch, options.length).to(options.device)
        positions = draw_positions(generator, options.batch, options.length).to(options.device)
        losses.append(loss_of(model, tokens, positions, options.device).item())
    return sum(losses) / len(losses)


def make_optimizers(model, options):
    """Muon for the matrices inside the layers, AdamW for the rest."""
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    inside = set(matrices)
    rest = [p for p in model.parameters() if p not in inside]
    return [
        torch.optim.Muon(matrices, lr=options.rate, weight_decay=0.1, momentum=0.95,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(model, training, held_out, options, log):
    optimizers = make_optimizers(model, options)
    generator = np.random.default_rng(options.seed)
    begin, step, done, losses = time.process_time(), 0, 0.0, []
    while done < 1:
        rate = options.rate * min(1, (step + 1) / 50) * min(1, (1 - done) / 0.3 + 0.01)
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        tokens = draw_batch(generator, training, options.batch, options.length).to(options.device)
        positions = draw_positions(generator, options.batch, options.length).to(options.device)
        loss = loss_of(model, tokens, positions, options.device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        elapsed = time.process_time() - begin
        done = max(step / options.steps if options.steps else 0, elapsed / 60 / options.minutes)
        if step % 200 == 0 or done >= 1:
            held = validation_loss(model, held_out, options)
            log(f"step {step} tokens {step * options.batch * options.length} loss "
                f"{np.mean(losses):.3f} held out {held:.3f} {elapsed:.0f} s")
            losses = []


def parse_options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("hidden", "intermediate", "layers", "query_heads", "kv_heads"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Shape, name))
    parser.add_argument("--minutes", type=float, default=25,
                        help="of processor time, at most")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0: as many as fit")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--text-tokens", type=int, default=8_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    shape = Shape(hidden=options.hidden, intermediate=options.intermediate, layers=options.layers,
                  query_heads=options.query_heads, kv_heads=options.kv_heads,
                  training_length=options.length)
    folder = cache_folder() / "rotary_model"
    folder.mkdir(exist_ok=True)
    with open(folder / "training_log.txt", "w", buffering=1) as log_file:
        def log(line):
            print(line, flush=True)
            log_file.write(line + "\n")

        training_texts, held_out_texts = corpus(options.seed)
        tokenizer = train_tokenizer(training_texts, shape.vocabulary)
        training = encode(tokenizer, training_texts, options.text_tokens)
        held_out = encode(tokenizer, held_out_texts, 500_000)
        model = Decoder(shape).to(options.device)
        log(f"{sum(p.numel() for p in model.parameters())} parameters, {len(training)} tokens")
        train(model, training, held_out, options, log)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({name: weight.cpu().contiguous() for name, weight in model.state_dict().items()},
              folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(shape), indent=2) + "\n")


if __name__ == "__main__":
    main()
