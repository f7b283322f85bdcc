"""Score records with a judge: quality per domain, and repetition. What it does not say clearly stays without a score.

```
records ─ exempt? media? ─> route (rules, judge) ─> quality prompt of the domain ─┐
records ─ exempt? ────────────────────────────────> repetition prompt ────────────┴─> answer ─ parse ─> Verdict
                                                                                               └ no ─> unparsed.jsonl
```
Source: InternVL 2.5, section 4.3; the report applies quality scores to text alone, because open judges of images are
too weak, and sends what the repetition prompt flags to manual review.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from internvl_lab.config.curation_judge import QualityConfig, RepetitionConfig, ScoringConfig
from internvl_lab.curation.judging.answers import parse_domain, parse_score, reason_of
from internvl_lab.curation.judging.aside import AsideLog
from internvl_lab.curation.judging.prompts import QUALITY_PROMPTS, REPETITION_PROMPT, ROUTER_PROMPT, sample_text
from internvl_lab.curation.judging.routing import route_by_rules
from internvl_lab.curation.verdicts import CurationRecord, Verdict
from internvl_lab.text.judging.asking import Asker
from internvl_lab.text.judging.judge import Question, Reply, Unanswered


class JudgeScorer:
    """Hold what both scorers share.

    Args:
        config: threshold and exempt sources.
        asker: the way to the judge.
        aside: where records without a score go.
        max_text_chars: characters of a conversation that the judge sees.
    """

    name = ""

    def __init__(self, config: ScoringConfig, asker: Asker, aside: AsideLog, max_text_chars: int) -> None:
        self._config, self._asker, self._aside, self._max_text_chars = config, asker, aside, max_text_chars

    def score(self, records: Sequence[CurationRecord]) -> list[list[Verdict]]:
        """Return a record's verdict, or none where it is exempt or the judge gave no score; in order.

        Raises:
            BudgetError: the budget is used up; all answers are kept.
            JudgeError: the judge cannot be used.
        """
        verdicts: list[list[Verdict]] = [[] for _ in records]
        chosen = [i for i, record in enumerate(records) if self._applies(record)]
        prompts = self._prompts([records[i] for i in chosen])
        asked = [(i, *prompt) for i, prompt in zip(chosen, prompts, strict=True) if prompt is not None]
        answers = self._ask([(system, records[i]) for i, system, _ in asked])
        for (i, _, note), answer in zip(asked, answers, strict=True):
            score = parse_score(answer) if isinstance(answer, Reply) else None
            if score is None:
                self._put_aside(records[i], answer, "no final line `Score: N`")
                continue
            assert isinstance(answer, Reply)
            self._aside.resolve(records[i].key, self.name)
            limit, detail = self._config.threshold, note + reason_of(answer)
            verdicts[i].append(Verdict(self.name, score, limit, score < limit, detail))
        return verdicts

    def _applies(self, record: CurationRecord) -> bool:
        return not any(fnmatchcase(record.source, pattern) for pattern in self._config.exempt)

    def _prompts(self, records: Sequence[CurationRecord]) -> list[tuple[str, str] | None]:
        """Return each record's prompt and what to put before the verdict's detail; None puts it out."""
        raise NotImplementedError

    def _ask(self, questions: Sequence[tuple[str, CurationRecord]]) -> list[Reply | Unanswered]:
        limit = self._max_text_chars
        return self._asker.ask([Question(system, sample_text(record.turns, limit)) for system, record in questions])

    def _put_aside(self, record: CurationRecord, answer: Reply | Unanswered, fault: str) -> None:
        if isinstance(answer, Unanswered):
            self._aside.add(record.key, self.name, answer.reason, None)
        else:
            reason = fault if answer.is_complete else "the answer was cut off at max_answer_tokens"
            self._aside.add(record.key, self.name, reason, answer.text)


class QualityScorer(JudgeScorer):
    """Score the quality of text-only records 0..10; below the threshold (default 7) they are rejected."""

    name = "quality"

    def __init__(self, config: QualityConfig, asker: Asker, aside: AsideLog, max_text_chars: int) -> None:
        super().__init__(config, asker, aside, max_text_chars)
        self._router = config.router

    def _applies(self, record: CurationRecord) -> bool:
        return not record.has_media and super()._applies(record)

    def _prompts(self, records: Sequence[CurationRecord]) -> list[tuple[str, str] | None]:
        domains = self._route(records)
        return [None if domain is None else (QUALITY_PROMPTS[domain], f"{domain}: ") for domain in domains]

    def _route(self, records: Sequence[CurationRecord]) -> list[str | None]:
        """Name each record's domain; None where the judge was asked and named none."""
        by_rules = self._router != "judge"
        domains = [route_by_rules(record.turns) if by_rules else None for record in records]
        if self._router == "rules":
            return [domain or "general" for domain in domains]
        open_ones = [i for i, domain in enumerate(domains) if domain is None]
        for i, answer in zip(open_ones, self._ask([(ROUTER_PROMPT, records[i]) for i in open_ones]), strict=True):
            domains[i] = parse_domain(answer) if isinstance(answer, Reply) else None
            if domains[i] is None:
                self._put_aside(records[i], answer, "no domain in one word")
        return domains


class RepetitionScorer(JudgeScorer):
    """Score the repetition in any record's text 0..10, 10 is none; below the threshold (default 3) it is rejected."""

    name = "judged_repetition"

    def __init__(self, config: RepetitionConfig, asker: Asker, aside: AsideLog, max_text_chars: int) -> None:
        super().__init__(config, asker, aside, max_text_chars)

    def _prompts(self, records: Sequence[CurationRecord]) -> list[tuple[str, str] | None]:
        return [(REPETITION_PROMPT, "")] * len(records)
