"""Stage 1, plan: from a seed to the two scenes of every pair, without a renderer."""
