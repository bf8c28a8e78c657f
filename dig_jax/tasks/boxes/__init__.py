"""Boxes in text, their overlap, and which belongs to which."""
