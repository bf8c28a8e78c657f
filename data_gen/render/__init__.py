"""Stage 2, render: Blender worker processes, and the checks of what they drew."""
