"""A script of the book's chapters 2 to 7 runs unchanged but for its imports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tiktoken")
SCRIPT = Path(__file__).with_name("reader_script.py")
TIKTOKEN_NAMES = {  # sha1 of the addresses under which tiktoken knows GPT-2's files
    "vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
}
EXPECTED = """\
V1 The dog sat.
V2 The <|unk|> sat.
windows 43 torch.Size([32])
v1, v2 torch.Size([6, 2]) torch.Size([6, 2])
causal torch.Size([2, 6, 2])
wrapper torch.Size([2, 6, 4])
multi-head torch.Size([2, 6, 4])
dummy torch.Size([1, 3, 50257])
simple torch.Size([1, 6])
loss > 9 True
learnt True True
sampled True
parts [16, 2, 6]
classifier 5 True
review spam
still True
prompt 2
batch True True
{"done": true}
"""


@pytest.mark.slow
def test_a_readers_script_runs_with_other_imports_only(tmp_path, real_data):
    text, n_changed = re.subn(
        r"^from (ch0\d|appendix_\w) import",
        r"from scratchlm.book.\1 import",
        SCRIPT.read_text("utf-8"),
        flags=re.M,
    )
    assert n_changed == 7
    (tmp_path / "script.py").write_text(text, encoding="utf-8")
    (tmp_path / "tiktoken").mkdir()
    for name, hashed in TIKTOKEN_NAMES.items():
        (tmp_path / "tiktoken" / hashed).write_bytes((real_data / "gpt2_bpe" / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "SCRATCHLM_ASSETS": str(real_data),
            "TIKTOKEN_CACHE_DIR": str(tmp_path / "tiktoken"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [
        line
        for line in done.stdout.splitlines()
        if not line.startswith(("Ep ", "Training ", "Validation ", "Test ", "The dog"))
    ]
    assert said == EXPECTED.splitlines()
