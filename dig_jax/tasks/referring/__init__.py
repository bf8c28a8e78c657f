"""Referring expressions: one phrase, one box or none."""
