"""Benchmarks as their makers publish them: from files as they are unpacked to rows."""
