"""Charts: ticks are round, the scale is right, and odd data draws something or says why not."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from worldfoundry.evaluation.charts import Series, line_chart, linear_ticks, log_ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (12.8, 21.4), (-3, 7), (0.001, 0.0042), (0, 7136)])
def test_linear_ticks_are_evenly_spaced_inside(low, high):
    ticks = linear_ticks(low, high)
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in itertools.pairwise(ticks)}
    assert steps == {1.0}
    assert 3 <= len(ticks) <= 11
    assert min(ticks) >= low - 1e-9
    assert max(ticks) <= high + 1e-9


def test_log_ticks_are_powers_of_ten_or_one_two_five():
    assert log_ticks(0.5, 2000) == [1, 10, 100, 1000]
    assert log_ticks(1, 9) == [1, 2, 5]


def drawn(svg):
    return [tuple(map(float, point.split(","))) for point in re.findall(r'points="([^"]*)"', svg)[0].split()]


def test_points_lie_where_the_axes_say():
    points = drawn(line_chart([Series(label="a", x=[0, 1, 2], y=[0.0, 5.0, 10.0])], x_label="x", y_label="y"))
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert points[0][1] > points[2][1]  # up is more


def test_a_log_axis_puts_equal_ratios_at_equal_distances():
    svg = line_chart([Series(label="a", x=[1, 10, 100], y=[1, 1, 1])], x_label="x", y_label="y", log_x=True)
    xs = [x for x, _ in drawn(svg)]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_it_is_well_formed_with_hostile_labels_missing_and_constant_values():
    series = [
        Series(label='<b a="1">&', x=[1, 2, 3], y=[math.nan, 5.0, 5.0]),
        Series(label="none", x=[1], y=[math.inf], dashed=True),
    ]
    svg = line_chart(series, x_label="<x>", y_label="&y", log_y=True)
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_nothing_finite_is_said():
    assert "Nothing to draw" in line_chart([Series(label="a", x=[1.0], y=[-1.0])], x_label="x", y_label="y", log_y=True)
