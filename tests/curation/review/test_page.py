from html.parser import HTMLParser

import pytest

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.curation.review.page import NUM_NEIGHBOURS, View, render_note, render_page
from internvl_lab.curation.review.reviews import ReviewLog

VIEW = View("anna <b>", "form-token", "nonce")


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture
def render(folder):
    flagged, log = FlaggedFile(folder), ReviewLog(folder / "reviews.jsonl")
    return lambda position: render_page(flagged, log, position, VIEW)


def test_the_page_shows_image_conversation_rule_score_and_who(render):
    page = render(0)
    assert "sample 1 of 4" in page and "0 of 4 decided · reviewer anna &lt;b&gt;" in page
    assert "<td>loop</td>" in page and ">0.62</td>" in page and ">0.4</td>" in page
    assert "A red disc. The picture shows a red disc and a blue frame<mark>" in page
    assert Tags(page).named("img")[0]["src"] == "/image/0/0"


def test_a_decision_is_shown_with_who_and_when(folder):
    flagged, log = FlaggedFile(folder), ReviewLog(folder / "reviews.jsonl")
    taken = log.add("web:1", "reject", "ben", ("loop",))
    page = render_page(flagged, log, 0, VIEW)
    assert f"reject by ben, {taken.at}" in page
    assert Tags(page).named("i")[0]["class"] == "dot reject"


def test_hostile_data_stays_text(render):
    page = render(3)
    tags = Tags(page)
    assert len(tags.named("script")) == 1 and tags.named("script")[0]["nonce"] == "nonce"
    assert all("onerror" not in attributes for _, attributes in tags.found)


def test_nothing_comes_from_outside(render):
    page = render(0)
    assert "http://" not in page and "https://" not in page and "//" not in page.replace("</", "")


def test_long_lists_show_the_neighbourhood(folder):
    path = folder / "flagged.jsonl"
    line = path.read_text().splitlines()[1]
    path.write_text("".join(line.replace("web:2", f"web:{n}") + "\n" for n in range(500)))
    flagged, log = FlaggedFile(folder), ReviewLog(folder / "reviews.jsonl")
    for position in (0, 250, 499):
        links = Tags(render_page(flagged, log, position, VIEW)).named("a")
        listed = [link["href"] for link in links if link.get("class") in (None, "here")]
        assert len(listed) == NUM_NEIGHBOURS
        assert [link["href"] for link in links if link.get("class") == "here"] == [f"/sample/{position}"]


def test_a_note_is_escaped():
    assert "<h1>&lt;b&gt;</h1>" in render_note("<b>", VIEW)
