"""Plots are well-formed, name what they draw, and have round numbers at their axes."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from flax_distil.core.svg_plot import Axis, line_plot, svg_file, thin


@pytest.mark.parametrize(
    ("values", "from_zero", "ticks"),
    [
        ((0.0, 10.0), False, (0, 2, 4, 6, 8, 10)),
        ((3.0, 97.0), True, (0, 20, 40, 60, 80, 100)),
        ((0.25, 0.31), False, (0.26, 0.28, 0.30)),
        ((-2.0, 2.0), True, (-2, -1, 0, 1, 2)),
    ],
)
def test_ticks_are_round_and_within_the_axis(values, from_zero, ticks):
    axis = Axis.over(values, from_zero=from_zero)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(axis.ticks)
    assert max(axis.ticks) <= axis.high + 1e-12


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e12])
@pytest.mark.parametrize("from_zero", [True, False])
def test_one_value_alone_has_an_axis(value, from_zero):
    axis = Axis.over([value], from_zero=from_zero)
    assert axis.low < axis.high
    assert 0 <= axis.share(value) <= 1


def test_a_file_is_xml_with_its_title_names_and_values():
    text = svg_file(
        "A <title>", {"loss & co": [(1.0, 2.0), (2.0, 1.5)], "none": [(1.0, math.nan)]}, unit=" %"
    )
    root = ElementTree.fromstring(text)
    words = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith(("title", "text")))
    assert "A <title>: loss & co 1.5 % at step 2" in words
    assert "loss & co, step 1: 2 %" in words
    assert "none" not in words


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [(1.0, math.inf)]}])
def test_nothing_is_drawn_of_nothing(lines):
    assert line_plot("a", lines) == svg_file("a", lines) == ""


def test_many_points_become_means_and_the_last_one_stays():
    points = [(float(step), float(step % 2)) for step in range(10_001)]
    thinned = thin(points, 100)
    assert len(thinned) <= 100
    assert thinned[-1] == points[-1]
    assert all(0.4 < value < 0.6 for _, value in thinned[:-1])
