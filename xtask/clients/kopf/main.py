"""kopf: an operator with peering, finalizers, status by patches, events, an index, a timer and a daemon."""

import pathlib
import subprocess
import sys
import tempfile

import cluster

OPERATOR = pathlib.Path(__file__).with_name("operator_under_test.py")
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kopfpeerings.kopf.dev}
spec:
  group: kopf.dev
  scope: Namespaced
  names: {plural: kopfpeerings, singular: kopfpeering, kind: KopfPeering}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
GADGET = """
apiVersion: example.com/v1
kind: Gadget
metadata: {name: one, namespace: kopf}
spec: {size: 1}
"""
PEERING = "{apiVersion: kopf.dev/v1, kind: KopfPeering, metadata: {name: pair, namespace: kopf}}"


def gadget():
    return cluster.read("gadget", "one", "-n", "kopf")


def work(operator):
    def replicas():
        return cluster.read("deployment", "one", "-n", "kopf")["spec"]["replicas"]

    cluster.kubectl("apply", "-f", "-", document=GADGET)
    cluster.eventually("the deployment", lambda: replicas() == 1, operator)
    result = lambda: gadget()["status"]["created"] == {"deployment": "one"}
    cluster.eventually("the handler's result", result, operator)
    cluster.equal("finalizers", gadget()["metadata"]["finalizers"], ["kopf.example.com/finalizer"])
    owner = cluster.read("deployment", "one", "-n", "kopf")["metadata"]["ownerReferences"][0]
    cluster.equal("owner", (owner["kind"], owner["name"]), ("Gadget", "one"))
    cluster.eventually("the timer's count", lambda: gadget()["status"]["pods"] == 1, operator)
    cluster.kubectl("patch", "gadget", "one", "-n", "kopf", "--type=merge", "-p", '{"spec":{"size":2}}')
    cluster.eventually("the new size", lambda: replicas() == 2, operator)
    cluster.eventually("two pods counted", lambda: gadget()["status"]["pods"] == 2, operator)
    peers = lambda: cluster.read("kopfpeering", "pair", "-n", "kopf").get("status")
    cluster.eventually("its mark among peers", peers, operator)
    events = lambda: cluster.kubectl("get", "events", "-n", "kopf")
    for text in ["deployment made", "daemon at work"]:
        cluster.eventually(f"the event {text}", lambda: text in events(), operator)


def end(operator):
    cluster.kubectl("delete", "gadget", "one", "-n", "kopf", "--timeout=30s")
    cluster.eventually("last words", lambda: cluster.read("configmap", "last-words-one", "-n", "kopf"), operator)
    gone = lambda: not cluster.read("deployments", "-n", "kopf")["items"]
    cluster.eventually("the deployment's end", gone, operator)


def main():
    cluster.kubectl("create", "namespace", "kopf")
    cluster.kubectl("apply", "-f", "-", document=DEFINITION)
    names = ["crd/gadgets.example.com", "crd/kopfpeerings.kopf.dev"]
    cluster.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
    cluster.kubectl("apply", "-f", "-", document=PEERING)
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "kopf", "run", "-n", "kopf", "--peering=pair", str(OPERATOR)]
        operator = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            work(operator)
            end(operator)
            operator.terminate()
            cluster.equal("exit code", operator.wait(timeout=30), 0)
        except BaseException:
            log.seek(0)
            print(log.read()[-6000:])
            raise
        finally:
            operator.kill()


main()
