"""image.py OUT NAME: a docker archive of one busybox, for programs that need a shell in a container."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile


def add(archive, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def layer():
    busybox = shutil.which("busybox")
    with open(busybox, "rb") as file:
        program = file.read()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add(archive, "bin/busybox", program, 0o755)
        for applet in subprocess.check_output([busybox, "--list"], text=True).split():
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                archive.addfile(link)
    return out.getvalue()


def main(out, name):
    data = layer()
    digest = hashlib.sha256(data).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    with tarfile.open(out, "w") as archive:
        add(archive, "config.json", json.dumps(config).encode())
        add(archive, "layer.tar", data)
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        add(archive, "manifest.json", json.dumps(manifest).encode())


main(*sys.argv[1:])
