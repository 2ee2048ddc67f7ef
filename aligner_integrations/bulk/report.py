"""What a bulk run has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What a bulk run has done.

    Attributes:
        rows: Rows of the input.
        changed: Those whose correction differs from the answer.
        failed: Those that stand in ``failures`` and not in the output.
        resumed: Those that an earlier run had done already.
        seconds: What this run took, the loading of the model not counted.
        output: The file with the corrected rows.
        failures: The side file of failed rows; None if there are none.

    Example:
        >>> failures = Path("out.jsonl.failed.jsonl")
        >>> print(BulkReport(1000, 300, 2, 0, 50.0, Path("out.jsonl"), failures))
        1000 rows in 50.0 s (20.0 rows/s): 300 changed, 2 failed
    """

    rows: int
    changed: int
    failed: int
    resumed: int
    seconds: float
    output: Path
    failures: Path | None

    def __str__(self) -> str:
        now = self.rows - self.resumed
        rate = f" ({now / self.seconds:.1f} rows/s)" if now and self.seconds > 0 else ""
        before = f", {self.resumed} of them by an earlier run" if self.resumed else ""
        return (
            f"{self.rows} rows in {self.seconds:.1f} s{rate}{before}: {self.changed} changed, "
            f"{self.failed} failed"
        )
