"""TOML files as typed tables: what is read, and how a mistake is told."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import field
from msgspec.structs import replace

from uqlib.files.typed import TomlTable, read_toml


class Part(TomlTable):
    id: str
    share: float = 1.0
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.share > 1:
            raise ValueError(f"share must be at most 1; it is {self.share}")


class Whole(TomlTable):
    name: str
    parts: tuple[Part, ...] = field(name="part", default=())
    size: int | None = None


@pytest.fixture
def read(tmp_path):
    def read(content, **given):
        (tmp_path / "x.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_toml(tmp_path / "x.toml", Whole, **given)

    return read


def test_a_file_becomes_a_table_with_its_defaults(read):
    found = read('name = "w"\n[[part]]\nid = "a"\nmore = {k = 3, x = [1, 2.5]}\n[[part]]\nid = "b"\nshare = 0\n')
    assert found == Whole("w", (Part("a", more={"k": 3, "x": [1, 2.5]}), Part("b", 0.0)))
    assert type(found.parts[0].more["k"]) is int  # what has no type stays as TOML has it
    assert read("", name="w") == Whole("w")


def test_a_table_is_frozen(read):
    with pytest.raises(AttributeError):
        read('name = "w"').name = "v"
    with pytest.raises(ValueError, match="share must be at most 1; it is 2"):
        replace(Part("a"), share=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nmae = 3", "x.toml: Object contains unknown field `nmae`; `name` comes near; choose from name, part, size"),
        ("zzz = 3", "x.toml: Object contains unknown field `zzz`; choose from name, part, size"),
        ("size = 3", "x.toml: Object missing required field `name`"),
        ('name = "w"\nsize = "3"', "x.toml: Expected `int | null`, got `str` - at `$.size`"),
        ('name = "w"\nsize = true', "x.toml: Expected `int | null`, got `bool` - at `$.size`"),
        ("name = 2020-01-01", "x.toml: Expected `str`, got `date` - at `$.name`"),
        ('part = [{id = "a", share = "1"}]', "x.toml: part a: Expected `float`, got `str` - at `$.part[0].share`"),
        ('part = [{id = "a"}, {id = "b", sahre = 1}]', "x.toml: part b: Object contains unknown field `sahre` - at `$.part[1]`; `share` comes near; choose from id, share, more"),
        ("part = [{share = 0.5}]", "x.toml: Object missing required field `id` - at `$.part[0]`"),
        ("part = [{id = 3}]", "x.toml: Expected `str`, got `int` - at `$.part[0].id`"),
        ("part = [3]", "x.toml: Expected `object`, got `int` - at `$.part[0]`"),
        ("part = {}", "x.toml: Expected `array`, got `object` - at `$.part`"),
        ('part = [{id = "a", share = 50}]', "x.toml: part a: share must be at most 1; it is 50.0 - at `$.part[0]`"),
        ('name = "w"\n" - at `$.part`" = 3', "x.toml: Object contains unknown field ` - at `$.part``"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_table_and_place(read, content, message):
    with pytest.raises(ValueError, match=r"x\.toml") as caught:
        read(content)
    assert str(caught.value).rpartition("/")[2].startswith(message)


def test_what_the_place_of_a_file_says_does_not_stand_in_it(read):
    with pytest.raises(ValueError, match=r"x\.toml: leave out `name`; the place of the file says it"):
        read('name = "v"', name="w")
    with pytest.raises(ValueError, match=r"unknown field `nmae`; choose from part, size$"):
        read("nmae = 3", name="w")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a = \xe4", "byte 4 is not UTF-8; save the file as UTF-8"),
        (b"a =", "no TOML: Invalid value"),
        (b"a = " + b"[" * 9999, "tables or lists lie too deep in each other"),
    ],
)
def test_a_file_that_is_no_toml_is_named(read, content, fault):
    with pytest.raises(ValueError, match=rf"x\.toml: {fault}"):
        read(content)
