"""Ansible's collection kubernetes.core, by a playbook."""

import os
import pathlib
import subprocess
import sys
import tempfile

playbook = pathlib.Path(__file__).with_name("playbook.yml")
with tempfile.TemporaryDirectory() as home:
    settings = {"ANSIBLE_LOCAL_TEMP": home, "ANSIBLE_HOME": home, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    # Ansible refuses to run in another locale.
    settings["LC_ALL"] = "C.UTF-8"
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(playbook)]
    sys.exit(subprocess.run(command, env=os.environ | settings).returncode)
