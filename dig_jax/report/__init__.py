"""What a run leaves behind for its reader: metrics, sample pictures, and one page that tells the story."""

from dig_jax.report.page import write_report
from dig_jax.report.shown import Shown
from dig_jax.report.summary import print_before_after
from dig_jax.report.writer import MetricsWriter, read_evals, read_lines

__all__ = ["MetricsWriter", "Shown", "print_before_after", "read_evals", "read_lines", "write_report"]
