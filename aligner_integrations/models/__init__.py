"""Finding, checking and loading aligner weights."""
