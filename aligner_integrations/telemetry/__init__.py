"""What the library tells of its work: spans and metrics for OpenTelemetry, where that is in use."""
