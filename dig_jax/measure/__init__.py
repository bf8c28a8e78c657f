"""Models measured on benchmarks: answers drawn and saved, scores with intervals, tables, comparisons."""
