"""Measuring how fast a model corrects on this machine; see ``aligner bench``."""
