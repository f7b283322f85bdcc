"""Split captions into the words of Stanford's PTB tokenizer (CoreNLP 3.4.1), which CIDEr's scorer runs in Java.

At each place the longest rule wins, and of equals the first; what a rule asks to follow counts for its length, but
stays for the next word. What no rule knows (emoji, some currency signs) is dropped, as there.

Equal to the Java program on 6,035 of 6,038 lines (captions with odd pieces, package descriptions, hard cases). Left out
are file names such as `6.x`, phone numbers with dots, and that a caption's last letter and dot depend on the caption in
the next line. Web addresses, e-mail and smileys are read by simpler rules than there.
"""

from __future__ import annotations

import re

_L = r"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u215f]|[\u0300-\u036f])"
"""A letter, and no digit-like sign such as a half."""
_LD = rf"(?:{_L}|\d)"
_A = "['’]"
_AX = "['’‘`]"
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_TAIL = rf"{_A}(?:[msdMSD]|(?i:re|ve|ll))"
_PART = rf"(?:[dDoOlL]{_AX}{_LD})?{_LD}+"
_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9]+))+"
_SLASH_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ABBREVIATIONS = (
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri ala ariz bldg calif ct colo conn "
    "dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt wis wisc wyo inc co cos corp pty "
    "ptys pte ltd plc bancorp bhd assn univ intl sys tel est ext sq jr bros ed.d ph.d esq etc al seq mr mrs ms dr drs "
    "prof profs sen sens rep reps atty attys lt col gen messrs gov govs adm rev maj sgt cpl pvt capt st ste ave pres "
    "lieut rt hon brig cmdr comdr pfc spc supt supts det mt ft sr invt elec natl mfg mtg dept blvd rd vs alex wm jos "
    "cie a.k.a cf treas ph adj adv asst assoc ens insp mlle mme msgr sfc"
)
_STATES = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_OPENERS = (
    "About According Additionally After An A As At But Did During Earlier He Her Here How However If In It Last Many "
    "More Now Once One Other Our She Since So Some Such That The Their Then There These They This We When While What "
    "Who Why Yet You"
)
"""Words that begin a sentence, so that the dot after a single letter ends one."""


def _any(words: str) -> str:
    return "|".join(map(re.escape, words.split()))


_RULES = [
    re.compile(rule)
    for rule in (
        r"([cC]\+\+|[cCfF]#)",
        r"((?i:can))(?i:not)",
        r"('(?i:t))(?i:was|is)(?!\w)",
        r"((?i:gon|wan))(?i:na)",
        r"((?i:got))(?i:ta)",
        r"((?i:lem|gim))(?i:me)",
        r"(<(?:[!?][A-Za-z-][^>]*|/?[A-Za-z][\w:.-]*(?: [^<>]*)?/?)>)",
        r"(&(?:amp|lt|gt|quot|apos);)",
        rf"({_WORD}){_TAIL}",
        rf"([A-Za-z]*[A-MO-Za-mo-z])[nN]{_AX}[tT]",
        rf"({_WORD})",
        rf"({_A}[nN](?:{_A}|(?!{_L}))|[lLdDjJ]{_A}|(?i:dunkin|somethin|ol){_A}|{_A}(?i:em|till?|cause)|{_A}[2-9]0[sS])",
        rf"([A-HJ-XZn]{_AX}{_L}{{2,}}|{_L}+[aeiouyAEIOUY]{_AX}[aeiouA-Z]{_L}*)",
        r"((?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|cap['’]n|c['’]est))",
        rf"([yY]{_A}){_L}",
        r"((?i:https?|ftp)://[^\s<>\"]*[\w/])",
        r"((?i:www\.)[\w-]+(?:\.[\w-]+)+(?:/[^\s<>\"]*[\w/])?)",
        r"([\w-]+(?:\.[\w-]+)*\.(?i:com|net|org|edu)(?!\w)(?:/[^\s<>\"]*[\w/])?)",
        r"([A-Za-z0-9][\w.+-]*@[\w-]+(?:\.[\w-]+)*)",
        r"([@#][A-Za-z_]\w*)",
        rf"({_TAIL})[^A-Za-z]",
        rf"([nN]{_AX}[tT])[^A-Za-z]",
        r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})",
        r"([-+]?(?:\d+(?:[.:,]\d+)*|(?:[.,]\d+)+))",
        r"([\u00b9\u00b2\u00b3\u2070-\u2079]+|[\u2080-\u2089]+)",
        r"((?:\d{1,4}[- \u00a0])?\d{1,4}(?:\\?/|\u2044)\d{1,4})",
        r"([\u00bc-\u00be\u2153\u2154])",
        r"(-[LR][RCS]B-|-[lr][rcs]b-|(?i:pro-|anti-|s&p-500|s&ls|c\.d\.s))",
        rf"({_SLASH_PART}(?:\\?/{_SLASH_PART}){{1,2}})",
        r"([A-Z]*\$|#|[\u00a2-\u00a5\u20a4\u20ac])",
        rf"([A-Za-z])\. +(?:{_any(_OPENERS)}|Mr\.|Ms\.)[ ?!]",
        r"((?i:ca|figs?|prop|nos?|art|bldg|pp|op)\.) ?\d",
        rf"((?:(?i:{_any(_ABBREVIATIONS)})|{_any(_STATES)})\.)",
        r"([A-Za-z](?:\.[A-Za-z])*\.)",
        rf"({_A}\d\d)\s",
        rf"({_WORD}\.)[,;:]",
        r"(\(\d{2,3}\)[ \u00a0]?\d{3,4}[- \u00a0]?\d{3,5})",
        r"(\"|''|['’]|[`\u2018-\u201f\u2039\u203a\u00ab\u00bb]{1,2})",
        r"(<<|>>|[<>])",
        r"([:;=][-']?[()DPp])[^A-Za-z0-9]",
        r"(\^[_.]?\^)",
        r"([()\[\]{}]|-+|@+|#+|_+|\*+|(?:\\\*){1,3}|[,;:.]|[?!]+|[¡¿=/])",
        rf"({_HYPHENATED})",
        rf"({_HYPHENATED}\.)[,;:]",
        rf"({_PART}(?:[-_\u058a\u2010\u2011]{_PART})*)",
        rf"({_PART}(?:[-_\u058a\u2010\u2011]{_PART})*\.)[,;:]",
        r"([A-Z]+(?:[+&][A-Z]+)+)",
        r"([A-Z]+(?:[+&][A-Z]+)+\.)[,;:]",
        r"([+%&~^|\\\u00a6-\u00b8\u00d7\u00f7\u2016\u2017\u2020-\u2025\u2030-\u2038\u203b-\u2044\u207a-\u207f\u208a-\u208e"
        r"\u2100-\u214f\u2190-\u2bff\u3001-\u3006\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65])",
    )
]
_WRITTEN = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{
        "&amp;": "&",
        "&lt;": "<",
        "&gt;": ">",
        "&quot;": "''",
        "&apos;": "'",
        "¢": "cents",
        "£": "#",
        "¤": "$",
        "€": "$",
    },
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "---": "--", "----": "--"},
}
_PARENTHESES = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_QUOTES = str.maketrans(
    {'"': "''", "“": "``", "«": "``", "”": "''", "»": "''", "‘": "`", "\u201b": "`", "\u2039": "`", "\u203a": "'"}
)
_STRAIGHT_TAIL = re.compile(rf"{_TAIL}|[nN]{_AX}[tT]|’")


def split_caption(caption: str) -> list[str]:
    """List the lower-cased words of a caption, marks among them, as the tokenizer prints them.

    Source: see the module.
    """
    text = re.sub(r"\s", " ", caption) + "\n"
    words, place = list[str](), 0
    while place < len(text):
        matches = [match for rule in _RULES if (match := rule.match(text, place))]
        best = max(matches, key=lambda match: match.end(), default=None)
        if best is None:
            place += 1
            continue
        words += _write(best.group(1)).split()
        place = best.end(1)
    return words


def _write(word: str) -> str:
    """Give a word the form in which the tokenizer prints it."""
    if _STRAIGHT_TAIL.fullmatch(word):
        word = word.replace("’", "'")
    word = word.lower().translate(_QUOTES) if not word[0].isalnum() else word.lower()
    return _WRITTEN.get(word) or word.translate(_PARENTHESES)
