"""kr8s: objects, waits, scaling, watches, exec, logs and port-forward over WebSocket."""

import threading
import urllib.request

import cluster
import kr8s
from kr8s.objects import ConfigMap, Deployment, Namespace, Pod, Service, new_class

SPACE = "kr8s"


def maps():
    def change():
        first = ConfigMap({"metadata": {"name": "a", "namespace": SPACE}, "data": {"k": "1"}})
        first.create()
        first.patch({"data": {"k": "2"}})
        first.label({"seen": "yes"})
        first.annotate(note="here")
        first.delete()

    events = kr8s.watch("configmaps", namespace=SPACE)
    seen = []
    threading.Timer(1, change).start()
    for kind, event in events:
        if event.name == "a":
            seen.append((kind, event.raw["data"]["k"], dict(event.labels or {})))
        if kind == "DELETED":
            break
    cluster.equal("first event", seen[0], ("ADDED", "1", {}))
    cluster.equal("last event", seen[-1], ("DELETED", "2", {"seen": "yes"}))


def workload():
    labels = {"app": "web"}
    container = {"name": "main", "image": "trireme.local/demo:v1", "ports": [{"containerPort": 8080}]}
    deployment = Deployment(
        {
            "metadata": {"name": "web", "namespace": SPACE},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
    )
    deployment.create()
    deployment.wait("condition=Available", timeout=cluster.PATIENCE)
    deployment.scale(2)
    cluster.eventually("two pods", lambda: len(deployment.pods()) == 2)
    service = {
        "metadata": {"name": "web", "namespace": SPACE},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    Service(service).create()
    deployment.wait("jsonpath='{.status.readyReplicas}'=2", timeout=cluster.PATIENCE)
    for pod in deployment.pods():
        pod.wait("condition=Ready", timeout=cluster.PATIENCE)
    return deployment.pods()[0]


def answers(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.status == 200


def streams(pod):
    # A pod without a readiness probe is ready a moment before it listens.
    with pod.portforward(remote_port=8080) as port:
        cluster.eventually("an answer of the pod", lambda: answers(port))
    with Service.get("web", namespace=SPACE).portforward(remote_port=8080) as port:
        cluster.eventually("an answer behind the service", lambda: answers(port))
    lines = cluster.eventually("lines of the log", lambda: list(pod.logs()))
    cluster.equal("type of lines", {type(line) for line in lines}, {str})


def commands():
    spec = {"containers": [{"name": "main", "image": "trireme.local/busybox:v1", "command": ["sleep", "3600"]}]}
    pod = Pod({"metadata": {"name": "shell", "namespace": SPACE}, "spec": spec})
    pod.create()
    pod.wait("condition=Ready", timeout=cluster.PATIENCE)
    done = pod.exec(["sh", "-c", "echo out; echo err >&2"])
    cluster.equal("streams", (done.stdout, done.stderr), (b"out\n", b"err\n"))
    failed = pod.exec(["sh", "-c", "exit 7"], check=False)
    cluster.equal("exit code", failed.returncode, 7)
    pod.delete(grace_period=0)
    pod.wait("delete", timeout=cluster.PATIENCE)


def discovery():
    kinds = {resource["kind"] for resource in kr8s.api_resources()}
    assert {"Pod", "Deployment", "Ingress", "Lease"} <= kinds, kinds
    lease = new_class("Lease", version="coordination.k8s.io/v1", namespaced=True)
    names = [one.name for one in lease.list(namespace="kube-node-lease")]
    assert names, "a lease for each node"
    cluster.equal("version", kr8s.version()["major"], "1")
    me = kr8s.whoami()
    assert me, "whoami says nothing"


def main():
    Namespace({"metadata": {"name": SPACE}}).create()
    cluster.eventually("the account", lambda: cluster.read("serviceaccount", "default", "-n", SPACE))
    discovery()
    maps()
    streams(workload())
    commands()


main()
