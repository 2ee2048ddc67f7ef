"""What an aligner is compared with: SFT, DPO and self-refine, on the same data and the same base."""
