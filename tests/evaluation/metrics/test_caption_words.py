"""Words of captions: each case was split by stanford-corenlp-3.4.1.jar, run by pycocoevalcap's `ptbtokenizer.py`."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics.captions import tokenise_caption


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        (
            "dunno 'twas 'tis ’tis gonna Gonna gotta gimme CANNOT",
            "dunno 't was 't is tis gon na gon na got ta gim me can not",
        ),
        ("I. The cat. U.S. The flag.", "i the cat u.s. the flag"),
        ("A. A dog J.K. Rowling, J. K.,", "a a dog j.k. rowling j. k."),
        ("p. 5 No. 5 no. five fig. 2 fig. two", "p. 5 no. 5 no five fig. 2 fig two"),
        ("Blvd. St. ft. oz. Inc. etc. vs. Sat. Mon. mass. Mass.", "blvd. st. ft. oz inc. etc. vs. sat mon. mass mass."),
        ("the dog., a cat.; the end.", "the dog. a cat. the end"),
        ("£5 €5 US$5 5¢ #5 50%", "# 5 $ 5 us$ 5 5 cents # 5 50 %"),
        ("can’t y'all o'clock O'Brien d'art cap'n", "ca n't y' all o'clock o'brien d'art cap'n"),
        ("rock'n'roll 'em 'til '90s '57 '57, boys'", "rock 'n' roll 'em 'til '90s '57 57 boys"),
        ("1/2 2 1/2 24/7 12/25/2020 10/20/30 ½", "1/2 2 1/2 24/7 12/25/2020 10/20/30 1/2"),
        ("<person> a<b <- ->", "<person> a < b < >"),
        (":) :-( ;-) :P =) ^_^ 8)", ":-rrb- :--lrb- ;--rrb- :p =-rrb- ^_^ 8 -rrb-"),
        ("a_b _a_ a-b a--b a- ----- ---", "a_b _ a _ a-b a b a -----"),
        ("#tag #1 @user me@x.org http://a.b/c, foo.bar", "#tag # 1 @user me@x.org http://a.b/c foo.bar"),
        ("“quoted” ‘q’ ``q'' \"q\" it'", "quoted q q q it"),
        ("““face ””", "```` face ''''"),  # two quotation marks at once are not in the list of punctuation
        ("5'10\" 3D 4x4 2nd 3-year-old x-ray", "5 10 3d 4x4 2nd 3-year-old x-ray"),
        ("what?! !!! a!b see... ...", "what ?! !!! a!b see"),
        ("AT&T b&w A/C and/or w/ w/o TV/DVD/CD", "at&t b & w a/c and/or w / w/o tv/dvd/cd"),
        (
            "1,000-pound U.S.-based red,white-blue a,b 10:30pm -5 +a",
            "1,000-pound u.s.-based red,white-blue a b 10:30 pm -5 + a",
        ),
        ("C++ C# * ** &amp; & 两只狗 🙂", "c++ c# * ** & & 两只狗"),
        ("(555) 123-4567 [a] {b}", "-lrb-555-rrb- 123-4567 -lsb- a -rsb- -lcb- b -rcb-"),
        ("'Navy 'Next", "navy next"),
    ],
)
def test_words(caption: str, words: str) -> None:
    assert tokenise_caption(caption) == words.split()
