"""Box every difference between two pictures: the paper's task."""
