"""A small checkout with the launch scripts, and a stand-in cloud for them to talk to."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
LAUNCH = HERE.parents[1] / "launch"
CONFIG = "def get_config():\n    return {}\n"


class Cloud:
    """The stand-in's folder, and the scripts run against it."""

    def __init__(self, folder: pathlib.Path, checkout: pathlib.Path):
        self.folder, self.checkout = folder, checkout
        self.state = {
            "failures": [],
            "location": "US-EAST5",
            "project_number": "123456789",
            "slice": None,
            "creations": [],
            "node_state": "READY",
            "stuck_deletions": 0,
            "hosts": 4,
            "saved": [],
            "attempts": [["running -", "exited 0"]],
            "workers": [],
            "log": "lines 2\nstep 10 loss 3.0\nstep 20 loss 2.5",
            "real_workers": False,
            "cluster": None,
            "cluster_state": "RUNNING",
            "pools": {},
            "jobset": None,
            "jobset_attempts": [["0", "0 Completed"]],
        }

    def put(self, gs_path: str, text: str = ""):
        """Puts an object in a bucket."""
        path = self.folder / "gs" / gs_path.removeprefix("gs://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def has(self, gs_path: str) -> bool:
        return (self.folder / "gs" / gs_path.removeprefix("gs://")).exists()

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess:
        """Runs a script of launch/ in the checkout, the stand-ins first on its PATH."""
        (self.folder / "cloud.json").write_text(json.dumps(self.state))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "STANDIN": str(self.folder),
            "TMPDIR": str(self.folder),
        }
        script, *rest = words
        command = ["bash", f"launch/{script}", *rest]
        result = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True, timeout=40)
        self.state = json.loads((self.folder / "cloud.json").read_text())
        assert result.returncode == expect, result.stdout + result.stderr
        return result

    def dry_run(self, *words: str) -> list[list[str]]:
        """The commands that a dry run prints, split as the shell would."""
        return [shlex.split(line) for line in self.run(*words, "--dry_run").stdout.splitlines()]

    def calls(self, *containing: str) -> list[list[str]]:
        """The calls so far whose line has all of these texts."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if all(text in " ".join(call) for text in containing)]

    def forget_calls(self):
        (self.folder / "calls.jsonl").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def checkout_template(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("launch") / "checkout"
    shutil.copytree(LAUNCH, folder / "launch")
    (folder / "launch/requirements.lock").write_text("absl-py==2.3.1\njax==0.10.2\n")
    (folder / "configs").mkdir()
    (folder / "configs/micro.py").write_text(CONFIG)
    (folder / ".gitignore").write_text("ignored*\n")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture
def cloud(tmp_path, checkout_template) -> Cloud:
    checkout = tmp_path / "checkout"
    shutil.copytree(checkout_template, checkout)
    folder = tmp_path / "cloud"
    (folder / "bin").mkdir(parents=True)
    standin = folder / "bin/gcloud"
    standin.write_text(f"#!{sys.executable} -SE\n" + (HERE / "standin.py").read_text())
    # Without site-packages, Python starts at once; a test starts it dozens of times.
    python = folder / "bin/python3"
    python.write_text(f'#!/bin/bash\nexec "{sys.executable}" -SE "$@"\n')
    for tool in (standin, python):
        tool.chmod(0o755)
    for tool in ("kubectl", "gke-gcloud-auth-plugin"):
        (folder / "bin" / tool).symlink_to(standin)
    cloud = Cloud(folder, checkout)
    cloud.put("gs://bucket/records/index.npz")
    cloud.put("gs://models/converted/desta_jax.json")
    return cloud
