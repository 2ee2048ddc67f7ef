"""What an aligner is compared with: SFT, DPO and self-refine, same data, same base."""
