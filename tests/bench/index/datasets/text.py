"""The machine's own text: licences, documentation, manual pages, sources of Python, Perl and C.

No file is downloaded. Every paragraph occurs once, and one file in HELD_OUT_STRIDE, chosen by the
hash of its path, is held out. `python -m datasets.text` prints how much there is.
"""

import gzip
import hashlib
import re
import sysconfig
import zlib
from collections import Counter
from html import unescape
from pathlib import Path

import numpy as np

SUFFIXES = {"", ".txt", ".md", ".rst", ".html", ".py", ".pl", ".pm", ".pod", ".h", ".c", ".info"}
MANUAL_SECTION = re.compile(r"\.[1-8][a-z]*")
FILE_CHARACTERS = range(1000, 4_000_000)
TAKEN_CHARACTERS = 200_000
REPEATABLE_CHARACTERS = 60
FAMILY_FILES_MAX = 100
HELD_OUT_STRIDE = 16


def folders():
    """Where text is looked for, what reads best first: of equal paragraphs the first one stays."""
    share = Path("/usr/share")
    return [
        share / "common-licenses", share / "doc", *sorted(share.glob("man/man[1-8]")),
        share / "info", share / "vim", Path(sysconfig.get_path("stdlib")), share / "perl",
        Path("/usr/lib/python3"), Path("/usr/include"),
    ]


def kind_of(path):
    """Suffix without .gz: ".man" for a manual page, None for a file that is not wanted."""
    name = path.name.removesuffix(".gz").lower()
    suffix = Path(name).suffix
    if MANUAL_SECTION.fullmatch(suffix):
        return ".man"
    if re.fullmatch(r"\.info-\d+", suffix):
        return ".info"
    return suffix if suffix in SUFFIXES else None


def read_text(path, kind):
    """The file as plain text, or "" if it is none."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return ""
    if kind == ".man":
        text = re.sub(r'^[.\']\\".*', "", text, flags=re.M)
        text = re.sub(r'^[.\'] *\w+ *"?(.*?)"?$', r"\1", text, flags=re.M)
        text = re.sub(r"\\f(.|\(..|\[\w*\])|\\[&|]", "", text).replace(r"\-", "-")
    if kind == ".html":
        text = unescape(re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", "", text))
    text = re.sub(r"\n\s*\n\n", "\n\n", text)
    if len(text) not in FILE_CHARACTERS or "\0" in text:
        return ""
    plain = sum(map(text[:4000].count, "etaoinshrdlu ")) / len(text[:4000])
    return text[:TAKEN_CHARACTERS] if plain > 0.4 else ""


def is_held_out(path):
    return zlib.crc32(str(path).encode()) % HELD_OUT_STRIDE == 0


def documents():
    """All (path, text), in a fixed order, without paragraphs that came before."""
    seen_files, seen, families = set(), set(), Counter()
    for folder in folders():
        for path in sorted(folder.rglob("*")):
            kind = kind_of(path)
            if kind is None or "site-packages" in path.parts or not path.is_file():
                continue
            real = path.resolve()
            family = (path.parent, re.split("[-_.]", path.name)[0])  # often generated alike
            if real in seen_files or families[family] == FAMILY_FILES_MAX:
                continue
            seen_files.add(real)
            families[family] += 1
            paragraphs = []
            for paragraph in read_text(path, kind).split("\n\n"):
                digest = hashlib.blake2b(" ".join(paragraph.split()).encode(), digest_size=8)
                if len(paragraph) < REPEATABLE_CHARACTERS or digest.digest() not in seen:
                    paragraphs.append(paragraph)
                seen.add(digest.digest())
            text = "\n\n".join(paragraphs)
            if len(text) in FILE_CHARACTERS:
                yield path, text


def corpus(seed):
    """(training texts, held-out texts), each in an order given by the seed."""
    parts = ([], [])
    for path, text in documents():
        parts[is_held_out(path)].append(text)
    generator = np.random.default_rng(seed)
    return tuple([part[i] for i in generator.permutation(len(part))] for part in parts)


def main():
    for name, texts in zip(("training", "held out"), corpus(seed=1)):
        megabytes = sum(map(len, texts)) / 1e6
        print(f"{name}: {len(texts)} files, {megabytes:.1f} million characters")


if __name__ == "__main__":
    main()
