"""The budget of thought: which token must come next, by hand, and how a model's own budget is made."""

import types

import numpy as np
import pytest

from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.rollout.thinking import Budget, make_budget

END = 9
PAD = 0


def rows(*completions: list[int]) -> np.ndarray:
    return np.array([completion + [PAD] * (8 - len(completion)) for completion in completions])


def test_the_closing_tokens_come_one_after_another_once_the_budget_is_spent() -> None:
    drawn = rows([1], [1, 2], [1, 2, 4], [1, 2, 4, END], [1, 2, 4, END, 5], [1, 2, 4, END, 5, 3])
    length = np.array([1, 2, 3, 4, 5, 6])
    budget = Budget(np.full(6, 2), END, (4, END, 5))
    np.testing.assert_array_equal(budget.forced(drawn, length), [-1, 4, END, 5, -1, -1])
    np.testing.assert_array_equal(budget.was_forced(drawn, length), [False, False, True, True, True, True])


def test_a_thought_that_ends_within_its_budget_is_left_alone() -> None:
    drawn = rows([1, END], [END, 3], [1, 2])
    budget = Budget(np.array([2, 2, 2]), END, (END,))
    np.testing.assert_array_equal(budget.forced(drawn, np.array([2, 2, 2])), [-1, -1, END])
    # Ended by itself, at its second token, before the budget was spent: nothing was forced.
    np.testing.assert_array_equal(budget.was_forced(drawn, np.array([2, 2, 2])), [False] * 3)


def test_every_completion_has_a_budget_of_its_own() -> None:
    drawn = rows([1, 2, 3], [1, 2, 3], [1, 2, 3])
    budget = Budget(np.array([2, 3, 4]), END, (4, END))
    np.testing.assert_array_equal(budget.forced(drawn, np.array([3, 3, 3])), [END, 4, -1])


def test_the_budget_of_a_model_closes_the_thought_as_its_template_does(tiny_qwen3vl_thinking) -> None:
    tokenizer = load_tokenizer(tiny_qwen3vl_thinking)
    budget = make_budget(tokenizer, 5, max_new_tokens=40, shape=(2, 3))
    assert tokenizer.decode(budget.closing) == "\n</think>\n\n"
    assert tokenizer.decode([budget.end]) == "</think>" and budget.closing.count(budget.end) == 1
    assert budget.tokens.shape == (2, 3) and np.all(budget.tokens == 5)
    most = 40 - len(budget.closing) - 1
    for tokens in (0, most + 1):
        with pytest.raises(ValueError, match=f"thinking_budget={tokens}: expected 1 to {most}"):
            make_budget(tokenizer, tokens, max_new_tokens=40)


@pytest.mark.parametrize("lacks", ["opens_thinking", "think_end_id"])
def test_a_model_that_does_not_think_has_no_budget(lacks: str) -> None:
    has = {"opens_thinking": True, "think_end_id": END} | {lacks: None}
    with pytest.raises(ValueError, match="thinking_budget=5: this model does not think"):
        make_budget(types.SimpleNamespace(**has), 5, max_new_tokens=40)
