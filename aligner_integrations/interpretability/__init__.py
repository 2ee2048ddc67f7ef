"""Look into an aligner: where copying and correcting part ways, and how to steer between them."""
