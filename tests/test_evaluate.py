"""Figures of an evaluation."""

import numpy as np

from dig_jax.evaluate import greedy_metrics


def test_text_that_is_no_list_has_no_number_of_boxes():
    terms = {name: np.ones(4) for name in ("f1", "iou", "precision", "recall", "reward")}
    terms["num_true"] = np.array([0, 0, 1, 2])
    terms["num_predicted"] = np.array([0, 0, 1, 1])
    terms["format"] = np.array([1.0, 0.0, 1.0, 1.0])
    assert greedy_metrics(terms)["count_accuracy"] == 0.5
