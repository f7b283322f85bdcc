"""CIDEr-D: agreement of a caption with several human ones, n-grams weighted by how rare they are among the images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.caption_words import split_caption
from internvl_lab.evaluation.metrics.pairs import answers_of, average, paired

MAX_N = 4
SIGMA = 6.0
SCALE = 10.0
_DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

Ngram = tuple[str, ...]


def tokenise_caption(caption: str) -> list[str]:
    """Split a caption into lower-cased words without punctuation, contractions apart, compounds whole.

    A text whose words are already apart comes back as it is. Brackets stay, because the list of punctuation names them
    in capitals and the words are in lower case.
    Source: pycocoevalcap, `tokenizer/ptbtokenizer.py` (`-lowerCase`, its list of punctuation).
    """
    return [word for word in split_caption(caption) if word not in _DROPPED]


def cider_d(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"cider_d": mean over images}, 10 for a caption equal to its only reference.

    Args:
        references: for each image its list of human captions, a single str, or a dict with `answers`.
    Raises:
        ValueError: no answers, not as many as references, or an image without references.
    Source: pycocoevalcap, `cider/cider_scorer.py` (n 1..4, sigma 6, document frequency over the references of these
    images, clipped counts); a single image has no rare words, so its score is 0.
    """
    pairs = [(_ngrams(p), [_ngrams(a) for a in answers_of(r)]) for p, r in paired(predictions, references)]
    frequency: Counter[Ngram] = Counter()
    for _, captions in pairs:
        frequency.update({ngram for caption in captions for ngram in caption})
    log_images = math.log(len(pairs))
    scores = []
    for counts, captions in pairs:
        found = _Vector(counts, frequency, log_images)
        wanted = [_Vector(caption, frequency, log_images) for caption in captions]
        scores.append(SCALE * average(found.similarity(vector) for vector in wanted))
    return {"cider_d": average(scores)}


def _ngrams(caption: str) -> Counter[Ngram]:
    """Count all n-grams of 1 to 4 words."""
    words = tokenise_caption(caption)
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))


class _Vector:
    """Hold the weighted n-grams of a caption."""

    def __init__(self, counts: Counter[Ngram], frequency: Counter[Ngram], log_images: float) -> None:
        self.weights: list[dict[Ngram, float]] = [{} for _ in range(MAX_N)]
        for ngram, count in counts.items():
            self.weights[len(ngram) - 1][ngram] = count * (log_images - math.log(max(1, frequency[ngram])))
        self.norms = [math.sqrt(math.fsum(w * w for w in weights.values())) for weights in self.weights]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        """Number of bigrams, which the official code takes for the length."""

    def similarity(self, other: _Vector) -> float:
        """Average the clipped cosine over n, less a penalty for another length."""
        penalty = math.exp(-((self.length - other.length) ** 2) / (2 * SIGMA**2))
        return penalty * average(self._cosine(other, n) for n in range(MAX_N))

    def _cosine(self, other: _Vector, n: int) -> float:
        norm = self.norms[n] * other.norms[n]
        theirs = other.weights[n]
        product = math.fsum(min(w, theirs[g]) * theirs[g] for g, w in self.weights[n].items() if g in theirs)
        return product / norm if norm else 0.0
