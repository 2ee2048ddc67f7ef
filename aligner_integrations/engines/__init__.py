"""What runs an aligner: this process's own model, or a server."""
