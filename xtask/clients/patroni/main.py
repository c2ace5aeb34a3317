"""Patroni: two PostgreSQL servers that elect a leader through Endpoints and pods, and fail over.

They run on this host; pods of the same names stand for them in the cluster, as Patroni wants.
"""

import json
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile

import cluster

SPACE = "patroni"
NAMES = ["db-0", "db-1"]
LABELS = {"application": "patroni", "cluster-name": "db"}
# Without a selector: its endpoints are Patroni's.
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: patroni}, spec: {ports: [{port: 5432}]}}"
# PostgreSQL does not run as root.
ACCOUNT = "nobody"
# Of the system, since the account may not enter the folders of another.
PYTHON = "/usr/bin/python3"


def pod(name):
    container = {"name": "main", "image": "trireme.local/busybox:v1", "command": ["sleep", "3600"]}
    meta = {"name": name, "namespace": SPACE, "labels": LABELS}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def programs():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "postgresql is not installed"
    return str(found[-1].parent)


def configuration(name, folder, context):
    data, rest = free_port(), free_port()
    login = lambda who: {"username": who, "password": who}
    return {
        "scope": "db",
        "name": name,
        "kubernetes": {
            "namespace": SPACE,
            "labels": {"application": "patroni"},
            "use_endpoints": True,
            # Only told to the cluster; an endpoint must not be a loopback address.
            "pod_ip": f"192.0.2.{int(name[-1]) + 1}",
            "ports": [{"name": "postgresql", "port": 5432}],
            "context": context,
        },
        "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
        "bootstrap": {"dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 6}, "initdb": [{"encoding": "UTF8"}]},
        "postgresql": {
            "listen": f"127.0.0.1:{data}",
            "connect_address": f"127.0.0.1:{data}",
            "data_dir": f"{folder}/{name}",
            "bin_dir": programs(),
            "pgpass": f"{folder}/{name}.pass",
            "parameters": {"unix_socket_directories": str(folder), "fsync": "off"},
            "authentication": {"superuser": login("super"), "replication": login("copy")},
            "pg_hba": ["host all all 127.0.0.1/32 md5", "host replication copy 127.0.0.1/32 md5"],
        },
    }


def start(name, folder, context):
    file = folder / f"{name}.yml"
    # JSON is YAML.
    file.write_text(json.dumps(configuration(name, folder, context)))
    log = open(folder / f"{name}.log", "w")
    account = pwd.getpwnam(ACCOUNT)
    command = [PYTHON, "-m", "patroni", str(file)]
    return subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig"), "LC_ALL": "C.UTF-8"},
    )


def members(role):
    pods = cluster.read("pods", "-n", SPACE, "-l", f"cluster-name=db,role={role}")["items"]
    states = {one["metadata"]["name"]: json.loads(one["metadata"]["annotations"]["status"]) for one in pods}
    return {name: state for name, state in states.items() if state["state"] in ("running", "streaming")}


def leader():
    return cluster.read("endpoints", "db", "-n", SPACE)["metadata"]["annotations"]["leader"]


def prepare(folder):
    cluster.kubectl("create", "namespace", SPACE)
    cluster.eventually("the account", lambda: cluster.read("serviceaccount", "default", "-n", SPACE))
    for name in NAMES:
        cluster.kubectl("apply", "-f", "-", document=pod(name))
    cluster.kubectl("apply", "-f", "-", document=SERVICE)
    (folder / "kubeconfig").write_text(cluster.kubectl("config", "view", "--raw", "--minify"))
    account = pwd.getpwnam(ACCOUNT)
    for path in [folder, folder / "kubeconfig"]:
        os.chown(path, account.pw_uid, account.pw_gid)
    return cluster.kubectl("config", "current-context").strip()


def check(running):
    first = cluster.eventually("a leader", leader, running[NAMES[0]])
    other = NAMES[1 - NAMES.index(first)]
    cluster.eventually("a primary", lambda: list(members("primary")) == [first], running[first])
    cluster.eventually("a replica", lambda: list(members("replica")) == [other], running[other])
    addresses = lambda: cluster.read("endpoints", "db", "-n", SPACE)["subsets"][0]["addresses"][0]
    cluster.eventually("the address", lambda: addresses()["ip"] == f"192.0.2.{int(first[-1]) + 1}")
    # The leader goes in order; the other follows it at once.
    running[first].terminate()
    running[first].wait(timeout=cluster.PATIENCE)
    cluster.eventually("another leader", lambda: leader() == other, running[other])
    cluster.eventually("another primary", lambda: other in members("primary"), running[other])
    cluster.eventually("the new address", lambda: addresses()["ip"] == f"192.0.2.{int(other[-1]) + 1}")


def main():
    assert shutil.which("kubectl")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="patroni"))
    running = {}
    try:
        context = prepare(folder)
        running = {name: start(name, folder, context) for name in NAMES}
        check(running)
    except BaseException:
        for name in running:
            print((folder / f"{name}.log").read_text()[-4000:])
        raise
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(timeout=cluster.PATIENCE)
        shutil.rmtree(folder)


main()
