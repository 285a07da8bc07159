"""The format of a set, the calibration of the made-up head, and the positions of the decoder.

    python -m pytest tests/bench/index/datasets
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from datasets import common, sharpness, synthetic, text  # noqa: E402
from datasets.synthetic_states import GROUP, HEAD_DIM, Preset  # noqa: E402

TOKENS = 4096


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def made(shift):
    preset = Preset(keys_for_90_percent=4000, needles=8, shift=shift)
    folder = synthetic.make("test", TOKENS, preset)
    arrays = [np.load(folder / f"{kind}_0.npy")
              for kind in ("keys", "values", "training", "questions")]
    return folder, arrays


def test_a_set_has_the_format():
    assert not common.is_complete(f"synthetic-test-{TOKENS}")
    folder, (keys, values, training, questions) = made(shift=1)
    assert common.is_complete(folder.name)
    assert keys.shape == values.shape == (TOKENS, HEAD_DIM)
    assert keys.dtype == values.dtype == np.float16
    assert training.shape == (TOKENS // common.SAMPLE_STRIDE * GROUP, HEAD_DIM)
    assert questions.shape == (common.QUESTIONS * GROUP, HEAD_DIM)
    assert training.dtype == questions.dtype == np.float32
    description = json.loads((folder / "set.json").read_text())
    assert (description["tokens"], description["group"]) == (TOKENS, GROUP)
    assert description["heads"] == [{"head": 0, "layer": 0, "kv_head": 0}]


def test_sharpness_is_calibrated_and_the_shift_only_moves_keys():
    weights = []
    for shift in (0, 1):
        _, (keys, _, _, questions) = made(shift)
        _, count = sharpness.head_sharpness(keys, questions, synthetic.LOGIT_SCALE, len(questions))
        assert count == pytest.approx(4000 * TOKENS / synthetic.CALIBRATION_KEYS, rel=0.2)
        logits = synthetic.LOGIT_SCALE * sharpness.scores(questions, keys).astype(np.float64)
        weights.append(np.exp(logits - logits.max(axis=1, keepdims=True)))
        weights[-1] /= weights[-1].sum(axis=1, keepdims=True)
    assert np.median(np.abs(weights[0] - weights[1]).sum(axis=1)) < 0.05


def test_a_paragraph_occurs_once(monkeypatch, tmp_path):
    paragraph = "a line of an ordinary text that the reader takes for one\n" * 20
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"{paragraph}\n\n{name} {paragraph}")
    monkeypatch.setattr(text, "folders", lambda: [tmp_path])
    (_, one), (_, two) = text.documents()
    assert one.startswith(paragraph.strip()) and two.startswith("two.txt")


def test_positions_rise_and_stay_in_range():
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    from datasets.train_rotary import POSITIONS, draw_positions

    positions = draw_positions(np.random.default_rng(1), batch=64, length=128).numpy()
    steps = np.diff(positions, axis=1)
    assert positions.min() >= 0 and positions.max() < POSITIONS
    assert (steps[::2] == 1).all() and (steps >= 1).all() and (steps[1::2] > 1).any()


def test_rotation_depends_on_the_distance_alone():
    torch = pytest.importorskip("torch")
    from datasets.rotary_model import Shape, rotate, rotation

    shape = Shape()
    x = torch.randn(2, 1, 1, 1, shape.head_dim, generator=torch.Generator().manual_seed(1))

    def product(*positions):
        turned = [rotate(v, *rotation(torch.tensor([[p]]), shape)) for v, p in zip(x, positions)]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 100_003) == pytest.approx(product(90_000, 189_996), abs=1e-3)
    assert product(7, 8) != pytest.approx(product(7, 100_003), abs=1e-3)
