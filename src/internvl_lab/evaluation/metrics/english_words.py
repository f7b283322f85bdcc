r"""Split English text into the words of spaCy's tokenizer, which VCR's official scorer counts.

    text ── white space ──> chunk ── marks at its ends ──> core: a known word, an address, or cut at marks inside
                                                             │
    words that make up a known word (`can't`, `:)`) <── merged ┘

White space beyond a single space is a word of its own, as are most marks and the parts of a contraction.
Source: spaCy 3.8 (MIT), `tokenizer.pyx`, `lang/punctuation.py` and the tables of English exceptions, written anew:
spaCy takes 335 MB with its dependencies, and VCR needs this one function. Equal to spaCy 3.8.18 on 14,000 texts
(captions, package descriptions, random joins of marks and known words); Arabic and Cyrillic units and the rarest
symbols are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product

_PUNCTUATION = "… , : ; ! ? ¿ ؟ ¡ ( ) [ ] { } < > _ # * & 。 ？ ！ ， 、 ； ： ～ · । ، ۔ ؛ ٪"  # noqa: RUF001
_QUOTES = "' \" ” “ ` ‘ ´ ’ ‚ , „ » « 「 」 『 』 （ ） 〔 〕 【 】 《 》 〈 〉 ⟦ ⟧"  # noqa: RUF001
_CURRENCIES = "$ £ € ¥ ฿ US$ C$ A$ ₽ ﷼ ₴ ₠ ₡ ₢ ₣ ₤ ₥ ₦ ₧ ₨ ₩ ₪ ₫ ₭ ₮ ₯ ₰ ₱ ₲ ₳ ₵ ₶ ₷ ₸ ₹ ₺ ₻ ₼ ₾ ₿"
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K %"
)
_ICONS = (
    "[¦©®°℀℁℃-℆℈℉℔№℗℞-℣℥℧℩\u212e℺℻⅊⅌⅍⅏↕-↙↜-↟↡↢↤↥↧-↭↯-⇍⇐⇑⇓⇕-⇳⌀-⌇⌌-⌟⌢-⌨⌫-⍻⍽-⎚⎴-⏛⏢-␦⑀-⑊⒜-ⓩ─-▶▸-◀◂-◷☀-♮♰-❧➔-➿⠀-⣿⬀-⬯"
    "⭅⭆⭍-⭳〄〒〓〠㈀-㈞㈪-㉇㉐㉠-㉿㊊-㊰㋀-㋾㌀-㏿\U0001f000-\U0001f773\U0001f780-\U0001f9ff]"
)


def _letters(kind: Callable[[str], bool]) -> str:
    """List letters of the European alphabets; Asian ones are both lower and upper case."""
    european = map(chr, (*range(0x41, 0x250), *range(0x370, 0x530), *range(0x1E00, 0x2000)))
    return (
        "".join(letter for letter in european if letter.isalpha() and kind(letter))
        + "א-ת\u0900-\u0dff\u3041-\u9fff가-힣"
    )


def _any(pieces: str) -> str:
    return "|".join(map(re.escape, pieces.split()))


_LOWER = _letters(lambda letter: not letter.isupper())
_UPPER = _letters(lambda letter: not letter.islower())
_ALPHA = _letters(lambda letter: True)
_Q = re.escape(_QUOTES.replace(" ", ""))
_P = re.escape(_PUNCTUATION.replace(" ", ""))
_DOTS = r"\.\.+|…"

_PREFIX = re.compile(rf"[§%=—–]|\+(?![0-9])|{_any(_PUNCTUATION)}|{_DOTS}|{_any(_QUOTES)}|{_any(_CURRENCIES)}|{_ICONS}")
_SUFFIX = re.compile(
    rf"(?:{_any(_PUNCTUATION)}|……|{_DOTS}|{_any(_QUOTES)}|{_ICONS}|['’][sS]|—|–|(?<=[0-9])\+|(?<=°[FfCcKk])\."
    rf"|(?<=[0-9])(?:{_any(_CURRENCIES)})|(?<=[0-9])(?:{_any(_UNITS)})"
    rf"|(?<=[0-9{_LOWER}%²\-+|{_Q}{_P}])\.|(?<=[{_UPPER}][{_UPPER}])\.)$"
)
_INFIX = re.compile(
    rf"{_DOTS}|{_ICONS}|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=[{_LOWER}{_Q}])\.(?=[{_UPPER}{_Q}])|(?<=[{_ALPHA}]),(?=[{_ALPHA}])"
    rf"|(?<=[{_ALPHA}0-9])(?:---?|——|[-–—~])(?=[{_ALPHA}])|(?<=[{_ALPHA}0-9])[:<>=/](?=[{_ALPHA}])"
)
_HOST = r"[A-Za-z0-9\u00a1-\uffff]"
_ADDRESS = re.compile(
    rf"(?:[\w+\-.]{{2,}}://)?(?:\S+@)?(?:[1-9]\d{{0,2}}(?:\.\d{{1,3}}){{3}}"
    rf"|(?:(?:{_HOST}(?:{_HOST}|[_-]){{0,62}})?{_HOST}\.)+[{_LOWER}]{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?"
)

_WHOLE = r"""
' \") <space> '' C++ \t \n — ä. ö. ü. 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout
ma'am Ma'am o'clock O'clock lovin' Lovin' lovin Lovin havin' Havin' havin Havin em 'em ll 'll nuff 'nuff 'd
Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan.
Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C.
Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc.
Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s.
:) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-((
:((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :*
:-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v
V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*)
(¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""  # noqa: RUF001
"""Words that stay whole."""

_ENDINGS = (
    ("i", "'m m 'm|a m|a"),
    ("i you he she it we they", "'ll ll 'll|'ve ll|ve 'd d 'd|'ve d|ve"),
    ("i you we they", "'ve ve"),
    ("you we they", "'re re"),
    ("he she it", "'s s"),
    ("who what when where why how there that this these those", "'ll ll 'll|'ve ll|ve 'd d 'd|'ve d|ve"),
    ("who what when where why how there that this", "'s s"),
    ("who what when where why how there these those", "'re re 've ve"),
    ("ca could do does did had may might must need ought sha should wo would", "n't nt n't|'ve nt|ve"),
    ("could might must should would", "'ve ve"),
    ("ai are is was were have has dare", "n't nt"),
    ("how", "'d|'y"),
    ("not", "'ve ve"),
    ("can", "not"),
    ("gon", "na"),
    ("got", "ta"),
    ("let", "'s"),
    ("c'm", "on"),
    ("doin goin nothin nuthin ol somethin", ""),
)
"""Words, and what may be joined to them; each is split off again."""
_NOT_CONTRACTED = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"


def _known_words() -> dict[str, list[str]]:
    """Map each word with a way of its own to its parts."""
    known = {word: [word] for word in (*_WHOLE.split(), *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz"))}
    known |= {space: [space] for space in " \t\n\u00a0"}
    known |= {f"°{scale}.": ["°", scale, "."] for scale in "cfkCFK"}
    known |= {f"{hour}{part}": [str(hour), part] for hour, part in product(range(1, 13), ("a.m.", "am", "p.m.", "pm"))}
    known |= {"y'all": ["y'", "all"], "yall": ["y", "all"]}
    for words, endings in _ENDINGS:
        for word in words.split():
            for start, ending in product((word, word.capitalize()), endings.split()):
                parts = [start, *ending.split("|")]
                known["".join(parts)] = parts
            if not endings:
                known |= {form: [form] for form in (word, f"{word}'", word.capitalize(), f"{word.capitalize()}'")}
    for word in _NOT_CONTRACTED.split():
        known.pop(word, None)
    curly = {word.replace("'", "’"): [part.replace("'", "’") for part in parts] for word, parts in known.items()}
    return curly | known


_KNOWN = _known_words()


def split_words(text: str) -> list[str]:
    """List the words of an English text in order; nothing but single spaces is lost.

    Source: see the module.
    """
    words, places = list[str](), list[int]()
    for chunk, place in _chunks(text):
        for word in _split_chunk(chunk, _KNOWN):
            words.append(word)
            places.append(place)
            place += len(word)
    return _merge(words, places)


def _chunks(text: str) -> Iterator[tuple[str, int]]:
    """Yield (chunk, place): stretches without white space, and of white space less the space that ends a word."""
    for match in re.finditer(r"\s+|\S+", text):
        chunk, place = match.group(), match.start()
        if chunk.isspace() and place and chunk[0] == " ":
            chunk, place = chunk[1:], place + 1
        if chunk:
            yield chunk, place


def _split_chunk(chunk: str, known: dict[str, list[str]]) -> list[str]:
    """Take marks off both ends as long as there are any, then split what is left."""
    before, after = list[str](), list[str]()
    while chunk and chunk not in known:
        start = match.end() if (match := _PREFIX.match(chunk)) else 0
        if start and chunk[start:] in known:
            before.append(chunk[:start])
            chunk = chunk[start:]
            break
        end = len(match.group()) if (match := _SUFFIX.search(chunk[start:])) else 0
        if end and chunk[:-end] in known:
            after.append(chunk[-end:])
            chunk = chunk[:-end]
            break
        if not start and not end:
            break
        if start:
            before.append(chunk[:start])
        if end:
            after.append(chunk[-end:])
        chunk = chunk[start : len(chunk) - end]
    return before + _split_core(chunk, known) + after[::-1]


def _split_core(core: str, known: dict[str, list[str]]) -> list[str]:
    """Split a chunk without marks at its ends: as it is known, or at the marks inside."""
    if core in known:
        return known[core]
    if not core or _ADDRESS.fullmatch(core):
        return [core] if core else []
    words, place = list[str](), 0
    for match in _INFIX.finditer(core):
        if match.start() == 0:
            continue
        words += [core[place : match.start()], match.group()]
        place = match.end()
    return [word for word in (*words, core[place:]) if word]


_SPLIT = {tuple(_split_chunk(word, {})) for word in _KNOWN if len(_split_chunk(word, {})) > 1}
"""What known words fall into where marks at their ends hide them."""
_LONGEST = max(map(len, _SPLIT))


def _merge(words: list[str], places: list[int]) -> list[str]:
    """Put words that make up a known word without a gap together, the longest first, and split them as it is."""
    spans = [
        (end - start, -start)
        for start in range(len(words))
        for end in range(start + 2, min(start + _LONGEST, len(words)) + 1)
        if tuple(words[start:end]) in _SPLIT
    ]
    merged = [[word] for word in words]
    taken = set[int]()
    for length, start in sorted(spans, reverse=True):
        span = range(-start, -start + length)
        whole = "".join(words[i] for i in span)
        without_gap = places[span[-1]] + len(words[span[-1]]) - places[span[0]] == len(whole)
        if without_gap and taken.isdisjoint((span[0], span[-1])):
            merged[span.start : span.stop] = [_KNOWN[whole], *[[]] * (length - 1)]
        taken.update(span)
    return [word for group in merged for word in group]
