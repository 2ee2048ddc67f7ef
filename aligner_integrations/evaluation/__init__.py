"""Measuring an aligner: what it makes better, what it spoils, what it costs."""
