"""What a wheel holds: every module, every data file of the package, the licence, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import scratchlm

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> list[str]:
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    [wheel] = folder.glob("*.whl")
    assert wheel.name == f"scratchlm-{scratchlm.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(members):
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scratchlm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in members if name.startswith("scratchlm/")} == wanted
    assert "scratchlm/py.typed" in wanted


@pytest.mark.slow
def test_only_the_package_and_its_metadata_are_in_the_wheel(members):
    assert {name.split("/")[0] for name in members} == {
        "scratchlm",
        f"scratchlm-{scratchlm.__version__}.dist-info",
    }


@pytest.mark.slow
def test_the_licence_and_the_command_are_in_the_wheel(members):
    info = f"scratchlm-{scratchlm.__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in members
    assert f"{info}/entry_points.txt" in members
