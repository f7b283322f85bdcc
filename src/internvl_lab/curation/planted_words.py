"""Material of the labelled set: words and sentences, English and Chinese, many enough that no two texts are alike."""

from __future__ import annotations

from random import Random


def words(text: str) -> tuple[str, ...]:
    """Split a text at its spaces."""
    return tuple(text.split())


NOUNS = words(
    "river bridge market garden window teacher engine forest letter kitchen harbour station mountain painter "
    "village camera bicycle orchard library tunnel lantern farmer museum coast valley candle basket ladder mirror "
    "captain meadow tower blanket kettle violin compass statue fountain carpet pigeon tractor sailor doctor island "
    "temple railway notebook chimney corridor balcony horse chapel factory theatre barrel anchor pillow shelf "
    "curtain"
)
ADJECTIVES = words(
    "old small bright quiet wooden narrow heavy green distant broken golden empty careful simple modern curious "
    "rusty gentle steep crowded famous hollow patient silver tired warm yellow ancient clever dusty frozen lively "
    "northern pale round sharp shallow silent sudden tall"
)
VERBS = words(
    "follows carries watches repairs crosses paints opens guards leaves reaches holds describes measures cleans "
    "builds finds covers answers moves shows hides lifts joins keeps meets passes remembers sells turns visits"
)
PLACES = ("beside", "behind", "above", "near", "under", "in front of", "across from", "inside", "beyond", "along")
NAMES = words("Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karin Louis Maria Nadia Oscar Paula")
PATTERNS = (
    "The {a} {n} {v} the {a} {n} {p} the {n}.",
    "A {n} {v} every {a} {n} that the {n} {v}.",
    "{p} the {a} {n}, a {n} {v} the {n}.",
    "{m} {v} the {a} {n} because the {n} is {a}.",
    "There is a {a} {n} {p} the {n}, and {m} {v} it.",
    "When the {n} is {a}, {m} {v} the {n} {p} the {a} {n}.",
    "Most people think that a {a} {n} {v} no {n}.",
    "In the picture, the {n} looks {a} while the {n} {v} a {n}.",
    "What {m} {v} is not the {n} but the {a} {n}.",
    "It takes {k} minutes until the {a} {n} {v} the {n}.",
)

ZH_NOUNS = words(
    "河流 桥梁 市场 花园 窗户 老师 机器 森林 信件 厨房 港口 车站 高山 画家 村庄 相机 果园 书店 "
    "隧道 灯笼 农民 博物馆 海岸 山谷 蜡烛 篮子 镜子 船长"
)
ZH_ADJECTIVES = words(
    "古老的 明亮的 安静的 狭窄的 沉重的 遥远的 破旧的 金色的 现代的 温暖的 著名的 耐心的 繁忙的 神秘的"
)
ZH_VERBS = words("经过 照亮 修理 保护 离开 到达 描述 测量 打扫 建造 寻找 覆盖 连接 纪念 参观")
ZH_PATTERNS = (
    "{a}{n}旁边有一座{n}。",
    "人们常常在{n}{v}{a}{n}。",
    "图中的{n}{v}了{a}{n}，远处还有{n}。",
    "如果{n}不是{a}，那么{n}就会{v}{n}。",
    "这位{n}用了{k}天才{v}那个{n}。",
    "我们可以看到{a}{n}和{a}{n}在一起。",
)


def sentence(rng: Random) -> str:
    """Make an English sentence of 8 to 15 words."""
    text = rng.choice(PATTERNS)
    for slot, choices in (("{a}", ADJECTIVES), ("{n}", NOUNS), ("{v}", VERBS), ("{p}", PLACES), ("{m}", NAMES)):
        while slot in text:
            text = text.replace(slot, rng.choice(choices), 1)
    text = text.replace("{k}", str(rng.randint(3, 90)))
    return text[0].upper() + text[1:]


def paragraph(rng: Random, low: int = 4, high: int = 10) -> str:
    """Make several sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(low, high)))


def phrase(rng: Random) -> str:
    """Make a few words without a stop."""
    return f"{rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def line(rng: Random) -> str:
    """Make a line of a poem."""
    return f"{sentence(rng)[:-1]},"


def zh_sentence(rng: Random) -> str:
    """Make a Chinese sentence."""
    text = rng.choice(ZH_PATTERNS)
    for slot, choices in (("{a}", ZH_ADJECTIVES), ("{n}", ZH_NOUNS), ("{v}", ZH_VERBS)):
        while slot in text:
            text = text.replace(slot, rng.choice(choices), 1)
    return text.replace("{k}", str(rng.randint(2, 60)))


def zh_paragraph(rng: Random, low: int = 4, high: int = 10) -> str:
    """Make several Chinese sentences."""
    return "".join(zh_sentence(rng) for _ in range(rng.randint(low, high)))
