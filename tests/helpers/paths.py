"""Where things lie in the checkout, however deep the file that asks."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
DOCS = ROOT / "docs"
HELPERS = ROOT / "tests" / "helpers"  # with programs that tests start as processes of their own
