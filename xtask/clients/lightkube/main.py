"""lightkube: typed models, server-side apply, watches, scaling, status, generic resources, logs."""

import threading

import cluster
from lightkube import ApiError, Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apiextensions_v1 import (
    CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion,
    CustomResourceSubresources,
    CustomResourceValidation,
    JSONSchemaProps,
)
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod
from lightkube.types import PatchType

SPACE = "lightkube"
LABELS = {"app": "web"}


def maps(client):
    seen = []

    def change():
        client.create(ConfigMap(metadata=ObjectMeta(name="a", labels=LABELS), data={"k": "1"}))
        client.patch(ConfigMap, "a", {"data": {"k": "2"}}, patch_type=PatchType.MERGE)
        patch = [{"op": "replace", "path": "/data/k", "value": "3"}]
        client.patch(ConfigMap, "a", patch, patch_type=PatchType.JSON)
        client.delete(ConfigMap, "a")

    found = client.list(ConfigMap)
    cluster.equal("maps at first", [one.metadata.name for one in found], ["kube-root-ca.crt"])
    revision = found.resourceVersion
    threading.Timer(0.5, change).start()
    for kind, one in client.watch(ConfigMap, labels=LABELS, resource_version=revision):
        seen.append((kind, one.data["k"]))
        if kind == "DELETED":
            break
    wanted = [("ADDED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3")]
    cluster.equal("events", seen, wanted)


def apply(client):
    def one(data, manager, force=False):
        document = ConfigMap(metadata=ObjectMeta(name="applied"), data=data)
        return client.apply(document, field_manager=manager, force=force)

    one({"a": "1"}, "first")
    one({"b": "2"}, "second")
    try:
        one({"a": "3"}, "second")
    except ApiError as error:
        cluster.equal("refusal", (error.status.code, error.status.reason), (409, "Conflict"))
    else:
        raise AssertionError("a conflict was not told")
    cluster.equal("forced", one({"a": "3"}, "second", force=True).data, {"a": "3"})


def workload(client):
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=LABELS),
        spec=PodSpec(containers=[Container(name="main", image="trireme.local/demo:v1")]),
    )
    spec = DeploymentSpec(selector=LabelSelector(matchLabels=LABELS), template=template, replicas=1)
    client.create(Deployment(metadata=ObjectMeta(name="web"), spec=spec))
    client.wait(Deployment, "web", for_conditions=["Available"])
    scale = Deployment.Scale(metadata=ObjectMeta(name="web", namespace=SPACE), spec=ScaleSpec(replicas=2))
    cluster.equal("scale", client.replace(scale, "web").spec.replicas, 2)
    pods = lambda: [pod for pod in client.list(Pod, labels=LABELS)]
    cluster.eventually("two pods", lambda: len(pods()) == 2)
    client.wait(Pod, pods()[0].metadata.name, for_conditions=["Ready"])
    cluster.eventually("a log", lambda: list(client.log(pods()[0].metadata.name)))
    shell = Container(name="main", image="trireme.local/busybox:v1", command=["sleep", "3600"])
    client.create(Pod(metadata=ObjectMeta(name="shell"), spec=PodSpec(containers=[shell])))
    client.wait(Pod, "shell", for_conditions=["Ready"])
    done = client.exec("shell", command=["echo", "said"], stdout=True)
    cluster.equal("output", done.stdout, "said\n")


def custom(client):
    spec = JSONSchemaProps(type="object", properties={"size": JSONSchemaProps(type="integer", minimum=1)})
    status = JSONSchemaProps(type="object", properties={"ready": JSONSchemaProps(type="boolean")})
    schema = JSONSchemaProps(type="object", properties={"spec": spec, "status": status})
    version = CustomResourceDefinitionVersion(
        name="v1",
        served=True,
        storage=True,
        schema=CustomResourceValidation(openAPIV3Schema=schema),
        subresources=CustomResourceSubresources(status={}),
    )
    names = CustomResourceDefinitionNames(kind="Part", plural="parts", singular="part")
    definition = CustomResourceDefinitionSpec(
        group="lightkube.example.com", names=names, scope="Namespaced", versions=[version]
    )
    meta = ObjectMeta(name="parts.lightkube.example.com")
    client.create(CustomResourceDefinition(metadata=meta, spec=definition))
    client.wait(CustomResourceDefinition, meta.name, for_conditions=["Established"])
    Part = create_namespaced_resource("lightkube.example.com", "v1", "Part", "parts")
    part = client.create(Part(metadata={"name": "p", "namespace": SPACE}, spec={"size": 2}))
    part["status"] = {"ready": True}
    client.replace(Part.Status.from_dict(part.to_dict()))
    cluster.equal("status", client.get(Part, "p").status, {"ready": True})
    try:
        client.patch(Part, "p", {"spec": {"size": 0}}, patch_type=PatchType.MERGE)
    except ApiError as error:
        cluster.equal("refusal", error.status.code, 422)
    else:
        raise AssertionError("a wrong size was taken")


def main():
    client = Client(namespace=SPACE, field_manager="lightkube")
    client.create(Namespace(metadata=ObjectMeta(name=SPACE)))
    for name in ["serviceaccount/default", "configmap/kube-root-ca.crt"]:
        cluster.eventually(name, lambda: cluster.read(name, "-n", SPACE))
    assert [node.metadata.name for node in client.list(Node)], "no nodes"
    maps(client)
    apply(client)
    workload(client)
    custom(client)


main()
