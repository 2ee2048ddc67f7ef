"""Load, soak and faults: every request must end as it should, and with its own answer.

    python -m docs.benchmarks.reliability gateway --json docs/benchmarks/reliability.json

Run it from the repository's root. Everything happens on 127.0.0.1, between processes that it starts
itself. See docs/reliability.md.
"""
