"""Training sequences: real text with needles, then questions; which keys are right is recorded."""

import dataclasses

import numpy as np

from recall_text import HELD_OUT, TEMPLATES, hide, needle_names, random_digits

DIGITS = 4
TRAINED_TEMPLATES = [i for i in range(len(TEMPLATES)) if i not in HELD_OUT]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the curriculum; a sequence has `tokens` bytes."""

    first_step: int
    tokens: int
    sequences: int
    needles: int
    questions: int
    near_share: float


@dataclasses.dataclass
class Batch:
    """B sequences of S tokens with N queries each: 4 per question, then plain-text positions.

    tokens int32 [B, S]; query int32 [B, N], position whose next byte is asked; right int32 [B, N],
    position of the needle's digit (0 for plain text); target int32 [B, N], the next byte;
    is_answer float32 [B, N].
    """

    tokens: np.ndarray
    query: np.ndarray
    right: np.ndarray
    target: np.ndarray
    is_answer: np.ndarray


def find(sequence, piece, begin=0):
    """First position of bytes `piece` in bytes `sequence`; it must be there."""
    at = sequence.find(piece, begin)
    assert at >= 0, piece
    return at


def vary_case(rng, names):
    """Some sequences have names with a capital."""
    return [name.capitalize() for name in names] if rng.random() < 0.3 else names


def questions_text(rng, text, pairs):
    """Joins (question, digits) pairs, sometimes with plain text between; returns bytes and starts.

    starts holds the offset of each answer's first digit.
    """
    out, starts = b"", []
    for question, digits in pairs:
        if rng.random() < 0.4:
            at = int(rng.integers(len(text) - 64))
            out += b"\n" + text[at : at + int(rng.integers(1, 40))].tobytes()
        out += b"\n" + question.encode()
        starts.append(len(out))
        out += digits.encode()
    return out, starts


def sequence(rng, text, words, stage):
    """One sequence: tokens [S] and lists of query and right-key positions, 4 per question."""
    syllables = int(rng.choice([2, 3, 3, 4]))
    words = words if rng.random() < 0.3 else None
    names = needle_names(rng, stage.needles, stage.near_share, syllables, words)
    names = vary_case(rng, names)
    answers = [random_digits(rng, DIGITS) for _ in names]
    mixed = rng.random() < 0.7  # else one template for the whole sequence: hardest to tell apart
    one = TRAINED_TEMPLATES[rng.integers(len(TRAINED_TEMPLATES))]
    kinds = [TRAINED_TEMPLATES[i] for i in rng.integers(len(TRAINED_TEMPLATES), size=len(names))]
    pairs = [TEMPLATES[kind if mixed else one] for kind in kinds]
    statements = [s.format(name=n, digits=d) for (s, _), n, d in zip(pairs, names, answers)]
    asked = rng.permutation(len(names))[: stage.questions]
    tail, starts = questions_text(
        rng, text, [(pairs[i][1].format(name=names[i]), answers[i]) for i in asked]
    )
    room = stage.tokens - len(tail) - sum(len(s) + 2 for s in statements)
    if room < 0:  # long names in long templates: draw again
        return sequence(rng, text, words, stage)
    at = int(rng.integers(len(text) - room - 1))
    body = hide(text[at : at + room], statements, np.sort(rng.random(len(names)))).tobytes()
    query, right = [], []
    for i, start in zip(asked, starts):
        digit = find(body, statements[i].encode()) + statements[i].find(answers[i])
        query += [len(body) + start - 1 + j for j in range(DIGITS)]
        right += [digit + j for j in range(DIGITS)]
    return np.frombuffer(body + tail, np.uint8).astype(np.int32), query, right


def make_batch(rng, text, words, stage, plain_queries):
    """A Batch of stage.sequences sequences, each with plain_queries queries in plain text.

    words: real words that some sequences take their names from.
    """
    rows = [sequence(rng, text, words, stage) for _ in range(stage.sequences)]
    tokens = np.stack([row[0] for row in rows])
    shape = (stage.sequences, plain_queries)
    plain = rng.integers(stage.tokens // 4, stage.tokens - 1, shape)
    query = np.concatenate([np.array([row[1] for row in rows]), plain], axis=1)
    right = np.concatenate([np.array([row[2] for row in rows]), np.zeros(shape, int)], axis=1)
    is_answer = np.zeros(query.shape, np.float32)
    is_answer[:, : stage.questions * DIGITS] = 1
    target = np.take_along_axis(tokens, query + 1, axis=1)
    return Batch(tokens, query.astype(np.int32), right.astype(np.int32), target, is_answer)
