"""Pages opened in headless Chromium, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium")


def open_page(address: str, profile: Path, size: str = "390,2000") -> tuple[str, list[str]]:
    """Open a page and return its elements after loading, as HTML, and the messages on its console.

    Args:
        address: Address of the page; that of a file begins with ``file://``.
        profile: Folder for what Chromium keeps, which may be used again by the next page.
        size: Width and height of the window in pixels.
    """
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}",
         "--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom", f"--user-data-dir={profile}",
         address],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
