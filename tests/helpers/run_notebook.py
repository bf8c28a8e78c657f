"""Runs a notebook in the folder it lies in, and writes its outputs into it (test_notebook.py).

python tests/helpers/run_notebook.py NOTEBOOK
"""

import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, timeout=3600, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, sys.argv[1])
