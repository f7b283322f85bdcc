"""Put a judge together from its settings and hand out the scorers that use it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.curation.judging.aside import UNPARSED, AsideLog
from internvl_lab.curation.judging.scoring import QualityScorer, RepetitionScorer
from internvl_lab.curation.verdicts import Scorer
from internvl_lab.text.judging.answer_store import AnswerStore
from internvl_lab.text.judging.asking import Asker
from internvl_lab.text.judging.judge import Judge

logger = logging.getLogger(__name__)

CACHE = "judge.sqlite"


@contextmanager
def open_scorers(config: JudgeConfig, out_dir: Path) -> Iterator[list[Scorer]]:
    """Give the scorers that are switched on; they share one judge, its cache and its budget.

    Args:
        config: what to score and whom to ask; kind `none` gives no scorers.
        out_dir: gets `judge.sqlite` (unless the cache lies elsewhere) and `unparsed.jsonl`.
    Raises:
        JudgeError: the judge or its cache cannot be used.
    """
    if config.kind == "none" or not (config.quality.enabled or config.repetition.enabled):
        yield []
        return
    judge = build_judge(config)
    store = AnswerStore(Path(config.cache) if config.cache else out_dir / CACHE)
    asker = Asker(judge, store, config)
    aside = AsideLog(out_dir / UNPARSED)
    scorers: list[Scorer] = []
    if config.quality.enabled:
        scorers.append(QualityScorer(config.quality, asker, aside, config.max_text_chars))
    if config.repetition.enabled:
        scorers.append(RepetitionScorer(config.repetition, asker, aside, config.max_text_chars))
    try:
        yield scorers
    finally:
        aside.close()
        store.close()
        logger.info(
            "judge: %d questions asked, %d answered from the cache; in all runs %d calls, cost %.4f; "
            "%d records without a score in %s",
            asker.num_asked,
            asker.num_cached,
            asker.budget.calls,
            asker.budget.cost,
            len(aside),
            out_dir / UNPARSED,
        )


def build_judge(config: JudgeConfig) -> Judge:
    """Build the judge that `config.kind` names.

    Raises:
        JudgeError: it cannot be used.
    """
    if config.kind == "local":
        from internvl_lab.curation.judging.local_judge import LocalJudge  # here, because torch takes seconds to import

        return LocalJudge(config)
    from internvl_lab.text.judging.http_judge import ChatJudge

    return ChatJudge(config)
