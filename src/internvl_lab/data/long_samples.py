"""Make room for conversations that are longer than a pack: cut the last answer, or split between the rounds.

```
prefix (system turn) | round 0: question, answer | round 1 | round 2 | ...       <- lengths of all are in the index
truncate_text:  prefix | round 0 | ... | question, beginning of the last answer
split:          prefix | round 0 | round 1     prefix | <image> round 2 | ...    <- each part with its images
```

A round begins with a human turn behind an answer. A part keeps the images of its rounds; if its first round brings
none, it goes on with those of the last round that brought some, each as `<image>` and a newline before the question.
Images are never cut, and a text ends between two tokens. Every length is exact, not estimated: special tokens always
split a text, so turns, and what stands between images, are tokenised independently of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from internvl_lab.constants import IMAGE_PLACEHOLDER
from internvl_lab.data.records import Record
from internvl_lab.text.template import ChatTemplate, EncodedText, Turn


@dataclass(frozen=True)
class RoundSizes:
    """Measure one conversation; lists have one entry a round."""

    text_tokens: int
    """All tokens without visual ones."""
    text_floor: int
    """The fewest of them that cutting the end of the last answer may leave: up to and with its first token."""
    tokens: list[int]
    lead_tokens: list[int]
    """Tokens of the round as the first one of a part."""
    images: list[int]


@dataclass(frozen=True)
class Part:
    """Name a stretch of a conversation that is trained as a sample of its own."""

    first: int
    """First round."""
    stop: int
    """Round behind the last."""
    first_image: int
    stop_image: int
    """Images of the sample that the part keeps: `[first_image, stop_image)`."""
    tokens: int
    """Tokens of the part, visual ones included."""
    tiles: int


def measure_rounds(record: Record, template: ChatTemplate) -> RoundSizes:
    """Count the tokens of a conversation as a whole and round by round.

    Raises:
        SampleError: as `ChatTemplate.encode`.
    """
    prefix, lengths = template.turn_lengths(record.turns, [0] * len(record.images), record.key)
    bounds = rounds_of(record.turns)
    images = [sum(_num_images(turn) for turn in record.turns[r.start : r.stop]) for r in bounds]
    tokens = [sum(lengths[r.start : r.stop]) for r in bounds]
    leads = list(tokens)
    for number in range(1, len(bounds)):
        carried = 0 if record.is_video else _carried(images, number)
        if carried:
            first = bounds[number].start
            led = _led(record.turns[first], carried)
            leads[number] += template.turn_lengths([led], [0] * _num_images(led), record.key)[1][0] - lengths[first]
    last = max(i for i, turn in enumerate(record.turns) if turn.role == "gpt")
    total = prefix + sum(lengths)
    floor = prefix + sum(lengths[:last]) + template.answer_header_length + 1
    if any(_num_images(turn) for turn in record.turns[last:]):
        floor = total
    return RoundSizes(total, min(floor, total), tokens, leads, images)


@dataclass(frozen=True)
class Splitter:
    """Split one conversation into parts that fit a pack."""

    prefix: int
    """Text tokens that each part begins with."""
    tokens: Sequence[int]
    lead_tokens: Sequence[int]
    images: Sequence[int]
    """Of each round, as in `RoundSizes`."""
    count_tiles: Callable[[int, int], int]
    """Return the tiles of images `[first, stop)` where they are all that a sample has."""
    max_tokens: int
    max_tiles: int
    tokens_per_tile: int

    def split(self) -> tuple[list[Part], list[int]]:
        """Return (parts, each as long as it can be; rounds that do not even fit alone)."""
        parts, unfit = list[Part](), list[int]()
        part: Part | None = None
        for number in range(len(self.tokens)):
            grown = self._fitting(part.first, number + 1) if part else None
            if grown is None:
                parts += [part] if part else []
                grown = self._fitting(number, number + 1)
                unfit += [] if grown else [number]
            part = grown
        return parts + ([part] if part else []), unfit

    def _fitting(self, first: int, stop: int) -> Part | None:
        """Return rounds `[first, stop)` as a part, if it keeps the limits."""
        first_image = sum(self.images[:first]) - _carried(self.images, first)
        stop_image = sum(self.images[:stop])
        tiles = self.count_tiles(first_image, stop_image)
        text = self.prefix + self.lead_tokens[first] + sum(self.tokens[first + 1 : stop])
        part = Part(first, stop, first_image, stop_image, text + tiles * self.tokens_per_tile, tiles)
        return part if part.tokens <= self.max_tokens and tiles <= self.max_tiles else None


def part_record(record: Record, part: Part) -> Record:
    """Cut a part out of a record; its key is KEY#FIRST_ROUND."""
    bounds = rounds_of(record.turns)
    turns = list(record.turns[bounds[part.first].start : bounds[part.stop - 1].stop])
    carried = part.stop_image - part.first_image - sum(map(_num_images, turns))
    if carried:
        turns[0] = _led(turns[0], carried)
    if record.turns[0].role == "system":
        turns.insert(0, record.turns[0])
    images = record.images[part.first_image : part.stop_image]
    return replace(record, key=part_key(record.key, part), turns=tuple(turns), images=images)


def part_key(key: str, part: Part) -> str:
    """Name a part of a sample."""
    return f"{key}#{part.first}"


def cut_text(encoded: EncodedText, max_tokens: int | None) -> EncodedText:
    """Keep the first `max_tokens` tokens of (T,) where T is larger.

    No end of turn is written behind the cut: the answer does not end there, and should not be learned to.
    """
    if max_tokens is None or len(encoded.input_ids) <= max_tokens:
        return encoded
    return EncodedText(encoded.input_ids[:max_tokens], encoded.labels[:max_tokens], encoded.response_ids[:max_tokens])


def rounds_of(turns: Sequence[Turn]) -> list[range]:
    """Group turns into rounds, the system turn left out: each begins with a human turn behind an answer."""
    first = 1 if turns and turns[0].role == "system" else 0
    begins = [
        i for i in range(first, len(turns)) if i == first or (turns[i].role == "human" and turns[i - 1].role == "gpt")
    ]
    return [range(begin, end) for begin, end in zip(begins, [*begins[1:], len(turns)], strict=True)]


def _carried(images: Sequence[int], number: int) -> int:
    """Count the images that a part beginning with round `number` goes on with."""
    if images[number]:
        return 0
    return next((images[i] for i in range(number - 1, -1, -1) if images[i]), 0)


def _num_images(turn: Turn) -> int:
    return turn.text.count(IMAGE_PLACEHOLDER) if turn.role == "human" else 0


def _led(turn: Turn, carried: int) -> Turn:
    """Put images before a question."""
    return Turn(turn.role, f"{IMAGE_PLACEHOLDER}\n" * carried + turn.text)
