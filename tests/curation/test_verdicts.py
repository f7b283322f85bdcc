from collections.abc import Sequence

from internvl_lab.curation import CurationRecord, Scorer, Verdict


class Approving:
    name = "approving"

    def score(self, records: Sequence[CurationRecord]) -> list[list[Verdict]]:
        return [[Verdict(self.name, 10.0, 7.0, False)] for _ in records]


def test_a_scorer_returns_one_list_of_verdicts_a_record() -> None:
    scorer: Scorer = Approving()
    record = CurationRecord("a:1", "a", {"id": 1}, (("human", "a"), ("gpt", "b")), (), False)
    assert scorer.score([record, record]) == [[Verdict("approving", 10.0, 7.0, False, "")]] * 2
