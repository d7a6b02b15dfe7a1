"""The module of the name that the book's readers know: it imports, and does nothing else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from scratchlm.book import ch05

PATH = Path(__file__).parents[2] / "gpt_download3.py"


def load():
    spec = importlib.util.spec_from_file_location("gpt_download3", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_names_are_ours():
    module = load()
    assert module.download_and_load_gpt2 is ch05.download_and_load_gpt2
    assert module.download_file is ch05.download_file
    assert module.load_gpt2_params_from_tf_ckpt is ch05.load_gpt2_params_from_tf_ckpt


def test_importing_it_opens_no_connection_and_prints_nothing(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        f"sys.path.insert(0, {str(PATH.parent)!r})\n"
        "import gpt_download3"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
