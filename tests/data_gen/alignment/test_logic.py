"""Three-valued predicates, and what a program means."""

import pytest

from data_gen.alignment.logic import MAYBE, NO, YES, Undecided, group, meant, related, truth
from tests.data_gen.alignment.scenes import thing, view

RED_CUBE = ["and", [["is", "color", "red"], ["is", "shape", "cube"]]]


def cube(id, x, color="red", **more):
    return thing(id, f"small {color} rubber cube", (x, 40, x + 20, 60), **more)


def test_an_attribute_is_yes_no_or_where_it_is_hardly_seen_maybe():
    scene = view(cube(1, 0), cube(2, 40, "blue"), cube(3, 80, seen=0.4), cube(4, 60, "blue", seen=0.1))
    assert truth(["is", "color", "red"], scene) == {1: YES, 2: NO, 3: MAYBE, 4: NO}


def test_pixels_are_counted_as_the_model_sees_them():
    small = thing(1, "small red rubber cube", (0, 0, 9, 9))  # 65 pixels of 100x100, 16 of 50x50
    assert truth(["is", "color", "red"], view(small))[1] == YES
    assert truth(["is", "color", "red"], view(small, width=200, height=50))[1] == MAYBE


def test_one_maybe_rejects_however_certain_the_target_is():
    assert meant(RED_CUBE, view(cube(1, 0), cube(2, 40, "blue"))).id == 1
    with pytest.raises(Undecided, match="perhaps another one"):
        meant(RED_CUBE, view(cube(1, 0), cube(2, 40, seen=0.3)))
    with pytest.raises(Undecided, match="2 objects"):
        meant(RED_CUBE, view(cube(1, 0), cube(2, 40)))


def test_a_conjunction_takes_the_lowest_value_so_one_no_settles():
    scene = view(cube(1, 0), cube(2, 40, "blue", seen=0.3))  # number 2 is perhaps a cube, but never red
    assert truth(["is", "shape", "cube"], scene)[2] == MAYBE
    assert meant(RED_CUBE, scene).id == 1


@pytest.mark.parametrize(
    ("pixels", "left"), [(0, NO), (2, NO), (3, MAYBE), (5, MAYBE), (6, YES), (40, YES), (-40, NO)]
)
def test_left_is_clear_from_six_hundredths_of_the_side_and_none_below_two(pixels, left):
    scene = view(a := cube(1, 40), b := cube(2, 40 + pixels))
    assert related(scene, a, "left of", b) == left
    assert related(scene, b, "right of", a) == left


@pytest.mark.parametrize(("gap", "front"), [(0.0, NO), (0.1, NO), (0.15, MAYBE), (0.25, YES), (-2.0, NO)])
def test_in_front_is_clear_from_half_of_the_mean_radius(gap, front):
    scene = view(a := cube(1, 0, depth=10.0), b := cube(2, 0, depth=10.0 + gap))
    assert related(scene, a, "in front of", b) == front
    assert related(scene, b, "behind", a) == front


def test_the_largest_surpasses_all_others_in_the_scene_and_in_the_picture():
    big, small = cube(1, 0, radius=1.0), cube(2, 40, radius=0.5)
    near = thing(3, "large red rubber cube", (60, 40, 90, 70), radius=0.5)  # it only looks large
    everything = ["is", "shape", "cube"]
    assert truth(["most", "largest", everything], view(big, small)) == {1: MAYBE, 2: MAYBE}
    wide = thing(1, "large red rubber cube", (0, 40, 30, 70), radius=1.0)
    assert truth(["most", "largest", everything], view(wide, small)) == {1: YES, 2: NO}
    assert truth(["most", "largest", everything], view(wide, small, near))[1] == MAYBE


def test_a_superlative_asks_only_those_of_its_group():
    scene = view(cube(1, 0, "blue"), cube(2, 30), cube(3, 60))
    assert meant(["most", "leftmost", ["is", "color", "red"]], scene).id == 2
    assert meant(["most", "leftmost", ["is", "shape", "cube"]], scene).id == 1


def test_a_member_that_is_perhaps_of_the_group_makes_the_most_uncertain():
    scene = view(cube(1, 0, seen=0.3), cube(2, 30), cube(3, 60))
    assert truth(["most", "leftmost", ["is", "color", "red"]], scene) == {1: MAYBE, 2: MAYBE, 3: NO}
    assert meant(["most", "rightmost", ["is", "color", "red"]], scene).id == 3


def test_a_landmark_must_mean_one_object_itself():
    sphere = thing(9, "small red rubber sphere", (50, 40, 60, 50))
    scene = view(cube(1, 0), cube(2, 80), sphere)
    left = ["and", [["is", "shape", "cube"], ["rel", "left of", ["is", "shape", "sphere"]]]]
    assert meant(left, scene).id == 1
    with pytest.raises(Undecided):
        truth(["rel", "left of", ["is", "shape", "cube"]], scene)


def test_nearest_needs_the_scene_and_the_picture_to_agree():
    cone = thing(9, "small red rubber cone", (40, 40, 50, 50))
    near, far = cube(1, 55), cube(2, 80)
    program = ["nearest", ["is", "shape", "cone"], ["is", "shape", "cube"]]
    assert meant(program, view(cone, near, far)).id == 1
    deep = cube(1, 55, depth=30.0)  # beside it in the picture, far behind it in the scene
    assert truth(program, view(cone, deep, far)) == {9: NO, 1: MAYBE, 2: MAYBE}


def test_crops_and_boxes_name_their_objects():
    scene = view(cube(1, 0), cube(2, 40))
    assert meant(["crop", 0], scene, [(40, 40, 60, 60)]).id == 2
    assert meant(["box", "[0.000,0.400,0.200,0.600]"], scene).id == 1
    with pytest.raises(Undecided):
        meant(["box", "[0.000,0.400,0.200,0.601]"], scene)


def test_what_is_no_program_is_an_error():
    with pytest.raises(ValueError, match="not a program"):
        truth(["is", "weight", "heavy"], view(cube(1, 0)))


def test_groups_come_from_left_to_right():
    assert [one.id for one in group(["is", "color", "red"], view(cube(1, 60), cube(2, 0)))] == [2, 1]


def test_boxes_are_written_in_the_square_that_the_picture_is_centred_in():
    wide = view(cube(1, 0), width=200, height=100)
    assert wide.box_text((0, 0, 200, 100)) == "[0.000,0.250,1.000,0.750]"
    assert view(width=75, height=100).box_text((0, 0, 75, 100)) == "[0.120,0.000,0.870,1.000]"
