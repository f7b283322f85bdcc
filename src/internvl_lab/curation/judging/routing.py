"""Name a record's domain by cheap rules, where they are sure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CODE = re.compile(
    r"```|^\s*(?:def |class |import |from \w+ import|#include\b|public static|function \w+\(|SELECT\b.+\bFROM\b)"
    r"|\b(?:python|javascript|typescript|c\+\+|golang|rust|sql|bash|regex|leetcode|stack trace|unit test)\b",
    re.IGNORECASE | re.MULTILINE,
)
_MATHEMATICS = re.compile(
    r"\\(?:frac|sqrt|sum|int|boxed|begin\{(?:align|equation|cases)|leq|geq|cdot)|\$[^$\n]*[=^\\][^$\n]*\$"
    r"|\b(?:prove that|theorem|integral|derivative|polynomial|eigenvalue|triangle|probability that|solve for"
    r"|how many (?:more|in total|are left)|equation)\b"
    r"|(?:证明|方程|求解|三角形|函数)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"^\s*\(?[A-E][.)]\s|\b(?:photosynthesis|enzyme|mitosis|molecule|isotope|thermodynamics|newton's|voltage|gdp|inflation"
    r"|diagnosis|patient|pathogen|constitution|plaintiff|treaty|dynasty|tectonic|supply and demand|oxidation)\b"
    r"|(?:化学|物理|生物|历史|地理)",
    re.IGNORECASE | re.MULTILINE,
)
_RULES = {"programming": _CODE, "mathematics": _MATHEMATICS, "disciplinary": _SUBJECT}
MIN_HITS = 2
"""Different hits that a rule needs; one word alone says little."""


def route_by_rules(turns: Sequence[tuple[str, str]]) -> str | None:
    """Return `programming`, `mathematics` or `disciplinary`, or None where no rule or more than one speaks.

    Args:
        turns: (role, text); system turns are not looked at.
    """
    text = "\n".join(words for role, words in turns if role != "system")
    hits = [domain for domain, rule in _RULES.items() if len({hit.lower() for hit in rule.findall(text)}) >= MIN_HITS]
    return hits[0] if len(hits) == 1 else None
