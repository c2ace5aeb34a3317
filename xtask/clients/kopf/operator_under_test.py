"""An operator: a Gadget has a Deployment of its own, its pods counted by a timer, and a daemon."""

import kopf
from kubernetes_asyncio import client, config


@kopf.on.startup()
async def start(settings, **_):
    await config.load_kube_config()
    settings.persistence.finalizer = "kopf.example.com/finalizer"
    settings.posting.loggers = True
    settings.posting.level = 20
    settings.watching.server_timeout = 30


@kopf.on.create("example.com", "v1", "gadgets")
async def created(spec, name, namespace, logger, **_):
    body = {
        "metadata": {"name": name},
        "spec": {
            "replicas": spec.get("size", 1),
            "selector": {"matchLabels": {"gadget": name}},
            "template": {
                "metadata": {"labels": {"gadget": name}},
                "spec": {"containers": [{"name": "main", "image": "trireme.local/demo:v1"}]},
            },
        },
    }
    kopf.adopt(body)
    async with client.ApiClient() as api:
        await client.AppsV1Api(api).create_namespaced_deployment(namespace, body)
    logger.info("deployment made")
    return {"deployment": name}


@kopf.on.field("example.com", "v1", "gadgets", field="spec.size")
async def resized(old, new, name, namespace, **_):
    if old is None:
        return
    async with client.ApiClient() as api:
        patch = {"spec": {"replicas": new}}
        await client.AppsV1Api(api).patch_namespaced_deployment(name, namespace, patch)
    return {"from": old, "to": new}


@kopf.on.event("apps", "v1", "deployments", labels={"gadget": kopf.PRESENT})
async def seen(**_):
    pass


@kopf.index("pods", labels={"gadget": kopf.PRESENT})
def pods_by_gadget(labels, name, **_):
    return {labels["gadget"]: name}


@kopf.timer("example.com", "v1", "gadgets", interval=0.5)
async def counted(patch, pods_by_gadget, name, **_):
    patch.status["pods"] = len(list(pods_by_gadget.get(name, [])))


@kopf.daemon("example.com", "v1", "gadgets", cancellation_timeout=2)
async def daemon(stopped, logger, **_):
    logger.info("daemon at work")
    await stopped.wait()


@kopf.on.delete("example.com", "v1", "gadgets")
async def deleted(name, namespace, **_):
    async with client.ApiClient() as api:
        body = {"metadata": {"name": f"last-words-{name}"}}
        await client.CoreV1Api(api).create_namespaced_config_map(namespace, body)
