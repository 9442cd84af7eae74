"""Names made short for people: never two of them the same."""

import pytest

from components.text import short_names


@pytest.mark.parametrize(
    ("names", "limit", "expected"),
    [
        (["Shoes", "Bags"], 26, ["Shoes", "Bags"]),
        (
            ["Home > Apparel & Accessories > Clothing > Dresses", "Home > Apparel & Accessories > Clothing > Skirts"],
            26,
            ["… > Clothing > Dresses", "… > Clothing > Skirts"],
        ),
        (["a rather long name without any path"], 20, ["a rather long name …"]),
        (
            ["a rather long name that ends in one", "a rather long name that ends in two"],
            26,
            ["…ends in one", "…ends in two"],
        ),
    ],
)
def test_short_names(names, limit, expected):
    """A path keeps its end, another name its beginning, and names that would be alike the part where they differ."""
    assert expected == short_names(names, limit)


@pytest.mark.parametrize("limit", [12, 26, 60])
def test_never_the_same_text_twice(limit):
    """Whatever the names, those that differ are shown as different texts of at most the limit."""
    names = [
        *(f"Group {k % 7} > Kind {k % 90} > Class number {k} of the whole catalogue" for k in range(3000)),
        *("x" * n for n in range(1, 400)),
        *(f"{'y' * 100}{k}{'z' * 100}" for k in range(50)),
        *(f"Top > {'w' * 80} > {k} > Same" for k in range(50)),
        "x" * (limit - 1) + "…",
        "tab\tbed",
        "tab bed",
    ]

    shown = short_names(names, limit)

    assert len(set(names)) == len(set(shown))
    assert max(map(len, shown)) <= limit
