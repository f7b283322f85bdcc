from dataclasses import dataclass, field

import pytest

from internvl_lab.config.typed import from_mapping
from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class Leaf:
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    leaf: Leaf = field(default_factory=Leaf)
    maybe: Leaf | None = None
    table: dict[str, Leaf] = field(default_factory=dict)
    count: int = 1
    flag: bool = False


def test_nested_values_get_their_types():
    root = from_mapping(Root, {"leaf": {"rate": 1, "names": ["a"]}, "maybe": {"rate": 2}, "table": {"x": {}}})
    assert root.leaf == Leaf(1.0, ("a",))
    assert isinstance(root.leaf.rate, float)
    assert root.maybe == Leaf(2.0)
    assert root.table == {"x": Leaf()}
    assert from_mapping(Root, {"maybe": None}).maybe is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"leaf": {"rat": 1}}, r"leaf\.rat"),
        ({"table": {"x": {"y": 1}}}, r"table\.x\.y"),
        ({"leaf": 3}, "leaf=3"),
        ({"leaf": {"names": "a"}}, r"leaf\.names"),
        ({"leaf": {"names": [1.5, None]}}, r"leaf\.names\[1\]"),
        ({"count": "three"}, "count='three' must be int"),
        ({"count": True}, "count=True must be int"),
        ({"flag": 1}, "flag=1 must be bool"),
        ({"table": []}, "table"),
    ],
)
def test_what_does_not_fit_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Root, values)
