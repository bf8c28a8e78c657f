"""From a user's boxes to shares of the picture."""

import pytest

from data_gen.imports.boxes import BadBox, same_boxes, shares, union

SIZE = (200, 100)  # width, height


@pytest.mark.parametrize(
    ("box", "units"),
    [((50, 10, 100, 30), "pixels"), ((0.25, 0.1, 0.5, 0.3), "unit"), ((250, 100, 500, 300), "thousandths")],
)
def test_all_units_give_the_same_shares(box, units):
    found, cut = shares(box, units, SIZE)
    assert found == pytest.approx((0.25, 0.1, 0.5, 0.3)) and not cut


def test_a_box_is_cut_at_the_edge_by_up_to_a_pixel():
    assert shares((-0.4, 0, 200.9, 100), "pixels", SIZE) == ((0, 0, 1, 1), True)
    with pytest.raises(BadBox, match="leaves the picture of 200x100 pixels$"):
        shares((0, 0, 201.1, 100), "pixels", SIZE)


@pytest.mark.parametrize(
    ("box", "units", "message"),
    [
        ((9, 1, 5, 8), "pixels", r"\[9, 1, 5, 8\] in pixels is inverted"),
        ((5, 8, 9, 8), "pixels", "is empty"),
        ((5, 5, 5.5, 9), "pixels", "is smaller than a pixel of the picture of 200x100"),
        ((200.5, 5, 201, 9), "pixels", "is smaller than a pixel"),
        (
            (0.2, 0.2, 0.9, 0.9),
            "pixels",
            'lies in the first pixel: if boxes are shares of the picture, say "unit"',
        ),
        ((0, 0, 1, 1), "thousandths", 'say "unit"'),
        ((20, 20, 90, 90), "unit", 'leaves the picture of 200x100 pixels: if boxes are pixels, say "pixels"'),
    ],
)
def test_a_box_that_is_none_is_refused_with_advice(box, units, message):
    with pytest.raises(BadBox, match=message):
        shares(box, units, SIZE)


def test_the_box_of_a_difference_is_around_both_and_one_may_be_missing():
    a, b = (0.1, 0.2, 0.3, 0.4), (0.2, 0.1, 0.25, 0.9)
    assert union(a, b) == (0.1, 0.1, 0.3, 0.9)
    assert union(None, b) == b and union(a, None) == a


def test_boxes_that_no_answer_could_tell_apart_are_found():
    assert same_boxes({0: (0.1, 0.2, 0.3, 0.4), 2: (0.1004, 0.2, 0.3, 0.4), 3: (0.102, 0.2, 0.3, 0.4)}) == [
        (0, 2)
    ]
