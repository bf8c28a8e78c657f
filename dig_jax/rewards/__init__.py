"""From a completion to its reward: read the boxes, match them to the true ones, score the match."""

from dig_jax.rewards.answer import REASONS, Answer, parse_answer
from dig_jax.rewards.reward import RewardConfig, Scores, mean_metrics, score_texts

__all__ = ["REASONS", "Answer", "RewardConfig", "Scores", "mean_metrics", "parse_answer", "score_texts"]
