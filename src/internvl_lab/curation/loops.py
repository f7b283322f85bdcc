"""Plant looping answers into a stream of samples: the fault that curation is there to find, in a known share.

```
samples ── position among the first round(share * n) of a seeded order? ── yes ──> last answer becomes a loop
                                                                         └ no ───> unchanged
```
The orders of two shares are the same, so the loops of 0.5 % are among those of 2 %: a study over shares changes nothing
else. A loop begins with the right answer and runs to its last character, as what a looping model was trained on does
(InternVL 2.5, figure 6: repeated sentences and clauses, circular proofs, runs of '0').
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from random import Random

from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError

LOOP_FIELD = "loop"
"""Field of a record that names the kind of its loop: for measurements, never for a filter."""
MIN_CHARS = 60


def _sentence(answer: str, rng: Random) -> str:
    return rng.choice(("The answer is {}. ", "So it is {}. ", "In the end we get {}. ")).format(answer)


def _word(answer: str, rng: Random) -> str:
    del rng
    return f"{answer.rsplit(maxsplit=1)[-1]} "


def _digits(answer: str, rng: Random) -> str:
    del answer
    return rng.choice(("0", "0", "00 ", "10"))


def _line(answer: str, rng: Random) -> str:
    return rng.choice(("- {}\n", "{}\n\n", "Step 1: {}\n")).format(answer)


def _circle(answer: str, rng: Random) -> str:
    name = rng.choice("ABXY")
    return f"Because {name} holds, it is {answer}. Because it is {answer}, {name} holds. Let me check that again. "


def _chinese(answer: str, rng: Random) -> str:
    return rng.choice(("答案是{}，", "所以结果是{}。", "让我们再想一想，是{}。")).format(answer)


LOOPS: dict[str, Callable[[str, Random], str]] = {
    "sentence": _sentence,
    "word": _word,
    "digits": _digits,
    "line": _line,
    "circle": _circle,
    "chinese": _chinese,
}
"""Kind to what is repeated, made from the right answer."""


def loop_text(answer: str, kind: str, max_chars: int, rng: Random) -> str:
    """Return the answer and a loop after it: `max_chars` characters in all, cut where the limit is, also inside a word.

    Args:
        answer: the right answer, with at least one word.
        kind: one of `LOOPS`.
    """
    unit = LOOPS[kind](answer, rng)
    start = f"{answer}\n" if kind in ("line", "circle") else f"{answer} "
    return (start + unit * (max_chars // len(unit) + 1))[:max_chars]


def plant_loops(
    samples: Iterable[RawSample], num_samples: int, share: float, seed: int, max_chars: int = 300
) -> Iterator[RawSample]:
    """Yield the samples in order, exactly round(share * num_samples) of them with a loop; kinds take turns.

    Args:
        samples: records of the authors' format; one whose last turn is no answer stays as it is.
        num_samples: how many there are.
        share: in [0, 1].
        seed: of the choice and of the loops.
        max_chars: length of a looping answer.
    Raises:
        ConfigError: a share outside [0, 1], or loops too short to be one.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share={share} of loops must lie in [0, 1]")
    if max_chars < MIN_CHARS:
        raise ConfigError(f"max_chars={max_chars} of a loop must be at least {MIN_CHARS}")
    order = Random(f"{seed}/loops").sample(range(num_samples), num_samples)
    kinds = dict(zip(order[: round(share * num_samples)], itertools.cycle(LOOPS), strict=False))
    for position, sample in enumerate(samples):
        kind = kinds.get(position)
        yield sample if kind is None else _with_loop(sample, kind, max_chars, Random(f"{seed}/loops/{position}"))


def _with_loop(sample: RawSample, kind: str, max_chars: int, rng: Random) -> RawSample:
    """Replace the last answer by a loop, in a copy."""
    turns = [dict(turn) for turn in sample.record["conversations"]]
    if turns[-1]["from"] != "gpt" or not turns[-1]["value"].strip():
        return sample
    turns[-1]["value"] = loop_text(turns[-1]["value"], kind, max_chars, rng)
    return dataclasses.replace(sample, record=sample.record | {"conversations": turns, LOOP_FIELD: kind})
