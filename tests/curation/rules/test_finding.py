from internvl_lab.curation.rules.finding import DETAIL_CHARACTERS, quote


def test_quotations_are_short_and_on_one_line():
    assert quote("a\n b\tc") == "a b c"
    assert len(quote("word " * 100)) == DETAIL_CHARACTERS
