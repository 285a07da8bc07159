"""Real text, names and needles: what the recall model is trained and measured on."""

import pathlib
import re
import sysconfig

import numpy as np

STATEMENTS = [
    "The code of {name} is {digits}.",
    "{name}'s code: {digits}.",
    "Remember: the code for {name} is {digits}.",
    "{name} has the code {digits}.",
    "For {name} enter {digits}.",
]
# The answer's digits follow the question.
QUESTIONS = [
    "The code of {name} is ",
    "What is the code of {name}? It is ",
    "{name}'s code: ",
    "Tell me the code for {name}: ",
    "{name} has the code ",
]
# (statement, question) pairs. The first is the plain template, which the formula weights are made
# for. HELD_OUT pairs are never trained on.
TEMPLATES = [(s, q) for s in STATEMENTS for q in QUESTIONS]
HELD_OUT = [i for i in range(len(TEMPLATES)) if i % 7 == 5]
TEXT_SUFFIXES = {".py", ".pod", ".txt", ".md", ".rst", ".html", ""}
CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"


def text_roots():
    """Folders with English text and source code that most machines have."""
    roots = [pathlib.Path(sysconfig.get_paths()["stdlib"])]
    roots += [pathlib.Path("/usr/share") / name for name in ("common-licenses", "doc", "perl")]
    return roots


def real_text(limit_bytes, skip_bytes=0, file_bytes=60_000):
    """Up to limit_bytes of ASCII text from files found on the machine, uint8 [n].

    Reads at most file_bytes of a file so that no single file dominates; skip_bytes leaves out the
    beginning, to keep evaluation text apart from training text.
    """
    pieces, total = [], 0
    for root in text_roots():
        for path in sorted(root.rglob("*")):
            if path.suffix not in TEXT_SUFFIXES or "site-packages" in path.parts:
                continue
            if not path.is_file() or path.is_symlink():
                continue
            with open(path, "rb") as file:
                data = np.frombuffer(file.read(file_bytes), np.uint8)
            if len(data) == 0 or np.mean(data > 126, dtype=float) > 0.02 or np.any(data == 0):
                continue
            pieces.append(data[data < 127])
            total += len(pieces[-1])
            if total >= skip_bytes + limit_bytes:
                return np.concatenate(pieces)[skip_bytes : skip_bytes + limit_bytes]
    return np.concatenate(pieces)[skip_bytes:] if pieces else np.zeros(0, np.uint8)


def random_name(rng, syllables=3):
    """A made-up word such as "bakuto"."""
    letters = [CONSONANTS, VOWELS] * syllables
    return "".join(kind[rng.integers(len(kind))] for kind in letters)


def near_name(rng, name):
    """A name that differs from `name` in one letter of the same kind."""
    at = int(rng.integers(len(name)))
    letters = (VOWELS if name[at] in VOWELS else CONSONANTS).replace(name[at], "")
    return name[:at] + letters[rng.integers(len(letters))] + name[at + 1 :]


def text_words(text):
    """Distinct lower-case words of 4 to 8 letters of text [n], sorted."""
    words = set(re.findall(r"\b[a-z]{4,8}\b", text.tobytes().decode("ascii")))
    return sorted(words)


def needle_names(rng, count, near_share=0.0, syllables=3, words=None):
    """`count` distinct names, about near_share of them one letter away from another one.

    Names are made up, or drawn from `words` where given.
    """
    names = []
    while len(names) < count:
        if names and rng.random() < near_share:
            name = near_name(rng, names[rng.integers(len(names))])
        else:
            name = words[rng.integers(len(words))] if words else random_name(rng, syllables)
        if name not in names:
            names.append(name)
    return names


def random_digits(rng, count=4):
    """`count` decimal digits as text."""
    return "".join(str(digit) for digit in rng.integers(0, 10, count))


def hide(text, statements, depths):
    """Puts statements into text at the given depths in [0, 1]; returns uint8 [n].

    Each goes to the first space or line end after its depth, so that words stay whole.
    """
    pieces, previous = [], 0
    for statement, depth in zip(statements, depths):
        cut = max(previous, int(depth * len(text)))
        gap = np.flatnonzero(np.isin(text[cut : cut + 80], (10, 32)))
        cut += int(gap[0]) if len(gap) else 0
        pieces += [text[previous:cut], np.frombuffer(f" {statement} ".encode(), np.uint8)]
        previous = cut
    return np.concatenate([*pieces, text[previous:]])
