"""Generate llm_from_scratch.ipynb from llm_from_scratch.py: `python dev/make_notebook.py`."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "llm_from_scratch.py"
NOTEBOOK = ROOT / "llm_from_scratch.ipynb"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def as_notebook(script: Path = SCRIPT) -> str:
    """The script's cells as a notebook that opens in Jupyter and Colab; the same text for the same script."""
    notebook = jupytext.read(script, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"  # otherwise a random one
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(as_notebook(), encoding="utf-8")
