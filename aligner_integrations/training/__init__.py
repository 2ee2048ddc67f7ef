"""Training an aligner: identity warm-up, then residual correction (Ji et al. 2024, section 3)."""
