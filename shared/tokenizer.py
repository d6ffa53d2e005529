"""Prompts to token ids: CLIP's own tokenizer, or one that comes in a model package.

CLIP's ids equal those of open_clip's reference tokenizer, which repairs broken Unicode (ftfy), unescapes
HTML entities twice, folds white space and lower-cases before byte-pair encoding. Three consequences:

- A user may type the reference's special tokens, ``<start_of_text>`` and ``<end_of_text>``. As in the
  reference they become the ids 49406 and 49407, and the model reads at the first end token, so what
  follows a typed ``<end_of_text>`` has no effect. OpenAI's spelling ``<|endoftext|>`` is plain text.
- Only the beginning of a long prompt is looked at, 32 characters for each token of the context: no token
  is longer.
- Lone surrogates become U+FFFD, NUL and other control characters vanish.
"""

from __future__ import annotations

import abc
import gzip
import html
from collections.abc import Iterator
from importlib import resources
from itertools import islice
from pathlib import Path

import ftfy
import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import BUILTIN_TOKENIZER, Manifest

TokenIds = npt.NDArray[np.int32]

START_ID = 49406
END_ID = 49407
_SPECIAL = {"<start_of_text>": START_ID, "<end_of_text>": END_ID}
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = START_ID - 2 * 256  # ids: 256 bytes, 256 bytes that end a word, then one a merge
_LONGEST_TOKEN = 32  # characters of the longest entry of the vocabulary
_WORD_END = "</w>"
_BLANK = "".join(map(chr, range(0x21))) + "\x7f"  # lines of these hold no words
# The reference matches without regard to case: to it the long s is an s, and U+0345 is no symbol.
_PIECE = (
    r"<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\u0345]+"
)


class Tokenizer(abc.ABC):
    """Turns a prompt into the ids that a model's text network takes. Safe to use from several threads."""

    @abc.abstractmethod
    def encode(self, text: str) -> TokenIds:
        """Ids of `text`, int32 ``[n]``, start and end token included, unpadded.

        Never more than the model's context; a longer prompt is cut and keeps the end token. The same text
        gives the same ids, and any string is fine.
        """

    def count(self, text: str) -> int:
        """How many tokens of `text` the model reads: the length of `encode`."""
        return len(self.encode(text))


class ClipTokenizer(Tokenizer):
    """The tokenizer of all CLIP models, from the vocabulary that ships with hailo-clip.

    Args:
        context_length: most ids, start and end token included.
    """

    def __init__(self, context_length: int = 77) -> None:
        self._content = context_length - 2
        # As many characters as the longest tokens could fill the context with. It bounds what a hostile
        # prompt costs: repairing Unicode takes time quadratic in combining marks.
        self._window = context_length * _LONGEST_TOKEN
        self._split = Split(tokenizers.Regex(_PIECE), "removed", invert=True)
        self._bpe = tokenizers.Tokenizer(_clip_bpe())
        to_bytes = ByteLevel(add_prefix_space=False, use_regex=False)
        self._bpe.pre_tokenizer = Sequence([self._split, to_bytes])

    def encode(self, text: str) -> TokenIds:
        """See `Tokenizer.encode`; an empty prompt gives the start and the end token."""
        # A word gives at least one token, so no more words than tokens can matter.
        words = islice(_clean_words(text[: self._window]), self._content)
        ids = self._pieces(" ".join(words).lower())
        return np.array([START_ID, *ids[: self._content], END_ID], dtype=np.int32)

    def _pieces(self, clean: str) -> list[int]:
        """Ids of a cleaned text without start and end token."""
        if not any(special in clean for special in _SPECIAL):
            return self._bpe.encode(clean, add_special_tokens=False).ids
        ids: list[int] = []
        for piece, _ in self._split.pre_tokenize_str(clean):
            ids += [_SPECIAL[piece]] if piece in _SPECIAL else self._bpe.encode(piece).ids
        return ids


class PackageTokenizer(Tokenizer):
    """The tokenizer of a model package, a file in the format of the `tokenizers` library.

    Args:
        path: the file; padding and truncation that it sets are ignored.
        context_length: most ids, start and end token included.

    Raises:
        ModelError: the file is missing or no tokenizer.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises nothing more precise
            raise ModelError(f"{path}: cannot be read as a tokenizer: {e}") from e
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._context = context_length

    def encode(self, text: str) -> TokenIds:
        """See `Tokenizer.encode`."""
        ids = self._tokenizer.encode(_without_lone_surrogates(text)).ids
        if len(ids) > self._context:
            ids[self._context - 1 :] = ids[-1:]
        return np.array(ids, dtype=np.int32)


def load_tokenizer(manifest: Manifest) -> Tokenizer:
    """The tokenizer that `manifest` names, in about 0.15 s.

    Raises:
        ModelError: the package's tokenizer file is missing or damaged.
    """
    text = manifest.text
    if text.tokenizer == BUILTIN_TOKENIZER:
        return ClipTokenizer(text.context_length)
    return PackageTokenizer(manifest.path(text.tokenizer), text.context_length)


def _clip_bpe() -> BPE:
    """The byte-pair model: ids in the order bytes, bytes that end a word, merges, special tokens."""
    packed = resources.files("hailo_clip.shared").joinpath("data", _VOCABULARY).read_bytes()
    # The file's first line is a version, and it holds far more merges than CLIP was trained with.
    merges = gzip.decompress(packed).decode("utf-8").split("\n", _MERGES + 1)[1 : _MERGES + 1]
    alphabet = _byte_alphabet()
    entries = alphabet + [c + _WORD_END for c in alphabet] + [m.replace(" ", "") for m in merges]
    vocabulary = {entry: i for i, entry in enumerate([*entries, *_SPECIAL])}
    pairs = [(left, right) for left, _, right in (m.partition(" ") for m in merges)]
    return BPE(vocabulary, pairs, end_of_word_suffix=_WORD_END)


def _byte_alphabet() -> list[str]:
    """One visible character for each of the 256 bytes, in the order of their ids (GPT-2's table)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]


def _clean_words(text: str) -> Iterator[str]:
    """The words of `text`, repaired and unescaped line by line, as far as the caller reads on."""
    if text.isascii() and text.isprintable() and "&" not in text:
        yield from text.split()  # nothing to repair: the common prompt
        return
    config = ftfy.TextFixerConfig()
    for line in text.split("\n"):
        if "<" in line:  # ftfy takes it for real HTML from here on, and leaves entities to the next step
            config = config._replace(unescape_html=False)
        if line.strip(_BLANK):
            yield from html.unescape(html.unescape(ftfy.fix_text(line, config))).split()


def _without_lone_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and each lone surrogate replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
