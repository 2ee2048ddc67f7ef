"""Known vulnerabilities in what is installed, by pip-audit; a line where no index tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

SECONDS = 180


def find_command() -> str | None:
    """pip-audit of this environment, else of the path."""
    beside = Path(sys.executable).with_name("pip-audit")
    return str(beside) if beside.exists() else shutil.which("pip-audit")


def main() -> int:
    """Audit; 1 only where a vulnerability is known."""
    command = find_command()
    if command is None:
        return skip("pip-audit is not installed")
    asked = [command, "--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*asked, "--skip-editable"],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return skip(f"it took more than {SECONDS} s")
    except (ValueError, KeyError):
        return skip((done.stderr.strip() or "no index can be reached").splitlines()[-1][:200])
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return skip("the index has no advisories")
    found = [(package, one) for package in audited for one in package["vulns"]]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "no version"
        say(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    say(
        f"dependency audit: {len(audited)} of {len(packages)} packages, {len(found)} known problems"
    )
    return 1 if found else 0


def skip(reason: str) -> int:
    """Say why there was no audit."""
    say(f"dependency audit skipped: {reason}")
    return 0


def say(line: str) -> None:
    """One line."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
