"""Where it is measured: one file per benchmark, a public set as questions of a task."""
