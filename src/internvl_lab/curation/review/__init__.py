"""Manual review: a person looks at what was flagged, and decides."""

from internvl_lab.curation.review.flagged import FLAGGED, FlaggedFile, FlaggedSample
from internvl_lab.curation.review.reviews import REVIEWS, Decision, ReviewLog

__all__ = ["FLAGGED", "REVIEWS", "Decision", "FlaggedFile", "FlaggedSample", "ReviewLog"]
