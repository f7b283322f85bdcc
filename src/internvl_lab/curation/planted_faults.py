"""Faults of the labelled set that one answer can have; each function draws one (question, answer).

Faults that need images, boxes or other records stand in `planted`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from internvl_lab.curation.planted_clean import Pair, form, listing, song
from internvl_lab.curation.planted_words import (
    ADJECTIVES,
    NOUNS,
    paragraph,
    phrase,
    sentence,
    words,
    zh_paragraph,
    zh_sentence,
)

KOREAN = words("강 다리 시장 정원 창문 선생님 숲 편지 부엌 역 산 마을 박물관 해안")
ARABIC = words("نهر جسر سوق حديقة نافذة معلم غابة رسالة مطبخ محطة جبل قرية متحف ساحل")


def _ask(rng: Random) -> str:
    return f"What can you say about the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}?"


def loop_tail(rng: Random) -> Pair:
    """End a sound answer in a phrase that is cut off in mid-loop."""
    unit = f"{phrase(rng)} and "
    loop = unit * (1 + rng.randint(190, 900) // len(unit))
    return _ask(rng), f"{paragraph(rng)} {loop[: -rng.randint(1, len(unit))]}"


def loop_sentence(rng: Random) -> Pair:
    """Say nothing but one or two sentences."""
    unit = " ".join(sentence(rng) for _ in range(rng.randint(1, 2)))
    return _ask(rng), " ".join([unit] * rng.randint(4, 40))


def loop_word(rng: Random) -> Pair:
    """Get stuck on a word."""
    word = rng.choice(NOUNS)
    return _ask(rng), f"{sentence(rng)} The {' '.join([word] * rng.randint(50, 200))}"


def loop_chinese(rng: Random) -> Pair:
    """Get stuck in Chinese, which has no words for n-grams to count."""
    unit = zh_sentence(rng)[: rng.randint(5, 14)]
    return "请描述一下。", zh_paragraph(rng, 1, 8) + unit * (1 + rng.randint(200, 600) // len(unit))


def loop_no_space(rng: Random) -> Pair:
    """Get stuck without spaces."""
    unit = "".join(rng.sample(NOUNS, rng.randint(1, 4)))
    return _ask(rng), f"{sentence(rng)} {unit * (1 + rng.randint(200, 600) // len(unit))}"


def loop_digits(rng: Random) -> Pair:
    """Recite a period."""
    unit = str(rng.randint(10**2, 10 ** rng.randint(3, 14)))
    return "Give many digits.", "0." + unit * (1 + rng.randint(200, 800) // len(unit))


def loop_lines(rng: Random) -> Pair:
    """End a list in one or two lines that recur."""
    rows = [f"- {phrase(rng)}" for _ in range(rng.randint(1, 2))]
    question, answer = listing(rng)
    return question, answer + "\n" + "\n".join(rows * rng.randint(12, 40))


def loop_counter(rng: Random) -> Pair:
    """Count steps that say the same."""
    claim = sentence(rng)
    return _ask(rng), " ".join(f"Step {i}: {claim}" for i in range(1, rng.randint(8, 30)))


def loop_blanks(rng: Random) -> Pair:
    """Read a form and do not find its end."""
    question, answer = form(rng)
    return question, answer + "\n" + "\n".join(["Name: ________ Street: ________ Town: ________"] * rng.randint(12, 40))


def closing_sentence(rng: Random) -> Pair:
    """Close a description two to four times. Source: spec section 9 (ShareGPT4V)."""
    closing = f"Overall, the scene {phrase(rng)} and conveys a sense of calm."
    return "Describe the picture.", f"{paragraph(rng, 3, 8)} {' '.join([closing] * rng.randint(2, 4))}"


def clause_loop(rng: Random) -> Pair:
    """Repeat clauses of a caption. Source: spec section 9 (Mantis)."""
    clauses = [f"a {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {phrase(rng)}" for _ in range(rng.randint(1, 3))]
    return "Describe the picture.", f"The picture shows {', '.join(clauses * rng.randint(5, 12))}."


def doubled(rng: Random) -> Pair:
    """Give the whole answer twice."""
    answer = paragraph(rng, 5, 12)
    return _ask(rng), answer + rng.choice((" ", "\n", "\n\n")) + answer


def doubled_chinese(rng: Random) -> Pair:
    """Give the whole answer twice, in Chinese."""
    return "请描述一下。", zh_paragraph(rng, 8, 14) * 2


def chorus_loop(rng: Random) -> Pair:
    """Write a song whose last chorus does not end."""
    question, answer = song(rng)
    return question, answer + ("\n" + answer.rsplit("\n\n", 1)[1]) * rng.randint(8, 16)


def zeros(rng: Random) -> Pair:
    """End in zeros. Source: spec section 9 (LLaVA-Video)."""
    return "How many frames are there?", f"{rng.choice(('', sentence(rng) + ' '))}{'0' * rng.randint(60, 2000)}"


def zeros_spaced(rng: Random) -> Pair:
    """List zeros."""
    return "Give the values.", rng.choice((" ", ", ", "\n")).join(["0"] * rng.randint(50, 400))


def character_run(rng: Random) -> Pair:
    """Hold a key down."""
    key = rng.choice("!a?x#-~.哈")
    return _ask(rng), sentence(rng) + key * (rng.randint(600, 2000) if key in "#-~." else rng.randint(40, 300))


def circular(rng: Random) -> Pair:
    """Prove each claim by the next one, round and round. Source: spec section 9 (Magpie)."""
    claims = [sentence(rng)[:-1].lower() for _ in range(rng.randint(2, 4))]
    starts = (
        "Since",
        "Because",
        "As",
        "Therefore",
        "Thus",
        "Hence",
        "So",
        "Then",
        "Again,",
        "But then",
        "We know that",
    )
    rounds = [_reworded(claim, rng) for _ in range(rng.randint(4, 8)) for claim in claims]
    return f"Prove that {claims[0]}.", " ".join(f"{rng.choice(starts)} {claim}." for claim in rounds)


def _reworded(claim: str, rng: Random) -> str:
    """Change a word of some claims, so that not all rounds are alike to the letter."""
    parts = claim.split()
    if rng.random() < 0.15:
        parts[rng.randrange(len(parts))] = rng.choice(ADJECTIVES)
    return " ".join(parts)


def run_on(rng: Random) -> Pair:
    """Never end a sentence."""
    return _ask(rng), "The picture " + " and ".join(phrase(rng) for _ in range(rng.randint(60, 140)))


def copied_question(rng: Random) -> Pair:
    """Answer with the question, once or several times."""
    question = _ask(rng)
    return question, " ".join([question] * rng.randint(1, 3))


def wrong_language(rng: Random) -> Pair:
    """Answer an English question in another script."""
    foreign = rng.choice((KOREAN, ARABIC))
    other = rng.choice((zh_paragraph(rng, 1, 6), " ".join(rng.choice(foreign) for _ in range(rng.randint(5, 14)))))
    return _ask(rng), other


def control_token(rng: Random) -> Pair:
    """Leave a template's token in the text."""
    token = rng.choice(("<|im_end|>", "<IMG_CONTEXT>", "<|endoftext|>", "<|im_start|>"))
    return _ask(rng), f"{paragraph(rng, 1, 4)}{token}"


def placeholder_in_answer(rng: Random) -> Pair:
    """Put a placeholder where no picture can be, or break it."""
    if rng.random() < 0.5:
        return _ask(rng), f"<image>\n{paragraph(rng, 1, 3)}"
    broken = rng.choice(("<image", "< image >", "<Image>", "</image>", "<image/>", "<video >"))
    return f"{broken}\n{_ask(rng)}", paragraph(rng, 1, 3)


ANSWERS: tuple[Callable[[Random], Pair], ...] = (
    loop_tail,
    loop_sentence,
    loop_word,
    loop_chinese,
    loop_no_space,
    loop_digits,
    loop_lines,
    loop_counter,
    loop_blanks,
    closing_sentence,
    clause_loop,
    doubled,
    doubled_chinese,
    chorus_loop,
    zeros,
    zeros_spaced,
    character_run,
    circular,
    run_on,
    copied_question,
    wrong_language,
    control_token,
    placeholder_in_answer,
)
