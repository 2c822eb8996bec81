from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from cxrnet.core.config import plain_config
from cxrnet.core.schema import build, need, schema
from cxrnet.errors import CxrnetError


@dataclass(frozen=True)
class Inner:
    name: str
    kind: Literal["last", "best"] = "best"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    size: tuple[int, int] = (3, 4)
    rates: float | tuple[float, ...] = 0.5
    parts: tuple[Inner, ...] = ()
    one: Inner | None = None
    free: dict[str, Any] | None = field(default_factory=dict)
    number: int | None = None

    def __post_init__(self) -> None:
        need(self.number != 13, "number", self.number, "another")


def composed(**values):
    return OmegaConf.merge(OmegaConf.structured(schema(Outer)), {"inner": {"name": "a"}, **values})


def test_what_is_composed_by_a_schema_makes_the_class():
    given = {"size": [1, 2], "rates": [0, 1], "parts": [{"name": 3, "kind": "last"}], "free": {1: "x"}}
    plain = plain_config(composed(**given))
    assert plain["parts"] == [{"name": "3", "kind": "last"}]
    assert type(plain["parts"][0]["kind"]) is str
    made = build(Outer, plain)
    assert made == Outer(Inner("a"), (1, 2), [0, 1], (Inner("3", "last"),), None, {1: "x"}, None)
    assert build(Outer, plain_config(composed())) == Outer(Inner("a"))
    assert composed(one={"name": "b"}).one.kind == "best"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"number": "x"}, ValidationError, "could not be converted to Integer"),
        ({"number": 1.5}, ValidationError, "could not be converted to Integer"),
        ({"number": True}, ValidationError, "could not be converted to Integer"),
        ({"parts": [{"name": "a", "kind": "worst"}]}, ValidationError, r"expected one of \[last, best\]"),
        ({"size": ["a"]}, ValidationError, "Integer"),
        ({"inner": {"nam": "a"}}, ConfigKeyError, "'nam' not in 'Inner'"),
    ],
)
def test_types_choices_and_names_are_checked(values, error, message):
    with pytest.raises(error, match=message):
        composed(**values)


def test_what_types_do_not_say_is_checked_when_the_class_is_made():
    with pytest.raises(CxrnetError, match=r"^size: \[1\] .* of 2"):
        build(Outer, plain_config(composed(size=[1])))
    with pytest.raises(CxrnetError, match=r"^free: 3 is no mapping"):
        build(Outer, plain_config(composed(free=3)))
    with pytest.raises(CxrnetError, match=r"^number: 13 is out of range; give another"):
        build(Outer, plain_config(composed(number=13)))
    with pytest.raises(CxrnetError, match=r"^inner.foo: no such key"):
        build(Outer, {"inner": {"name": "a", "foo": 1}})
    with pytest.raises(CxrnetError, match=r"^inner: .*'name'"):
        build(Outer, {"inner": {}})
