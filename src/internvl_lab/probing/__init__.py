"""Probes: what a vision encoder has learned, told by heads on its features.

encoder, pictures, miniworld -> features (stored) -> heads, module, classify -> table, plot, report
encoder, masks -> pyramid, segment, sliding -> grids, report
"""
