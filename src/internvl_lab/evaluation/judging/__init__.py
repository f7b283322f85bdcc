"""Sets whose answers a language model judges: the official protocols, and asking the judge."""
