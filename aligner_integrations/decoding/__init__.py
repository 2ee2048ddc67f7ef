"""Decoding: token ids in, token ids out. Knows transformers models, no text and no framework."""
