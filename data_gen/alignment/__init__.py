"""From rendered scenes to questions that align texts, coordinates and object crops (docs/alignment.md)."""
