"""The Python client against a cluster: list, watch across a restart, patches, apply, logs, exec.

Asks for the restart by the line "restart" and waits for one on standard input. Fails by an exception.
"""

import sys

import urllib3
from kubernetes import client, config, watch
from kubernetes.stream import stream

SPACE = "clients"
SELECTOR = "test=clients"


def connect():
    # Anew after the restart: the port may be another.
    config.load_kube_config()
    return client.CoreV1Api()


def follow(core, revision, wanted):
    """Events after a revision until there are so many; a broken watch goes on where it was."""
    seen = []
    while len(seen) < wanted:
        try:
            events = watch.Watch().stream(
                core.list_namespaced_config_map,
                SPACE,
                resource_version=revision,
                label_selector=SELECTOR,
                timeout_seconds=60,
            )
            for event in events:
                revision = event["object"].metadata.resource_version
                seen.append((event["type"], event["object"].metadata.name))
                if seen == [("ADDED", "a")]:
                    print("restart", flush=True)
                    sys.stdin.readline()
                if len(seen) == wanted:
                    break
        except urllib3.exceptions.HTTPError:
            core = connect()
    return core, seen


def config_map(name):
    labels = dict([SELECTOR.split("=")])
    return {"metadata": {"name": name, "labels": labels}, "data": {"made": "by python"}}


def patches(apps):
    container = {"name": "one", "image": "none"}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    apps.create_namespaced_deployment(SPACE, {"metadata": {"name": "web"}, "spec": spec})

    def patch(body, kind):
        kind = f"application/{kind}+json"
        return apps.patch_namespaced_deployment("web", SPACE, body, _content_type=kind)

    second = {"name": "two", "image": "none"}
    changed = {"spec": {"template": {"spec": {"containers": [second]}}}}
    names = [c.name for c in patch(changed, "strategic-merge-patch").spec.template.spec.containers]
    assert names == ["two", "one"], names
    names = [c.name for c in patch(changed, "merge-patch").spec.template.spec.containers]
    assert names == ["two"], names
    operation = {"op": "add", "path": "/metadata/labels", "value": {"patched": "yes"}}
    assert patch([operation], "json-patch").metadata.labels == {"patched": "yes"}


def apply(core):
    def send(manager, value, force):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}}
        return core.patch_namespaced_config_map(
            "applied",
            SPACE,
            {**body, "data": {"key": value}},
            field_manager=manager,
            force=force,
            _content_type="application/apply-patch+yaml",
        )

    send("first", "1", False)
    try:
        send("second", "2", False)
        raise AssertionError("a field of another manager was taken without force")
    except client.ApiException as refused:
        assert refused.status == 409, refused
    taken = send("second", "2", True)
    assert taken.data == {"key": "2"}, taken
    assert "second" in [f.manager for f in taken.metadata.managed_fields], taken


def main():
    core = connect()
    listed = core.list_namespaced_config_map(SPACE, label_selector=SELECTOR)
    assert listed.items == [], listed
    core.create_namespaced_config_map(SPACE, config_map("a"))
    core, seen = follow(core, listed.metadata.resource_version, 4)
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("DELETED", "a")], seen
    patches(client.AppsV1Api())
    apply(core)
    # Read raw: the client shows bytes as Python writes them.
    read = core.read_namespaced_pod_log
    logs = read("echo", "default", timestamps=True, _preload_content=False).data.decode()
    assert logs[:2] == "20" and "demo v1 on echo" in logs, logs
    command = ["/trireme", "--version"]
    run = core.connect_get_namespaced_pod_exec
    said = stream(run, "echo", "default", command=command, stdout=True, stderr=True)
    assert "trireme" in said, said


main()
