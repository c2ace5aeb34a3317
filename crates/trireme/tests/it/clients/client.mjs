// The JavaScript client against a cluster: list, watch across a restart, patches, apply, logs, exec.
//
// Asks for the restart by the line "restart" and waits for one on standard input.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import * as k8s from "@kubernetes/client-node";

const namespace = "clients";
const labelSelector = "test=clients";
const patch = (strategy) => k8s.setHeaderOptions("Content-Type", strategy);

function connect() {
  // Anew after the restart: the port may be another.
  const config = new k8s.KubeConfig();
  config.loadFromDefault();
  return config;
}

/// Asks for the restart, and waits until it is over.
async function restarted() {
  const lines = createInterface({ input: process.stdin });
  console.log("restart");
  await new Promise((resolve) => lines.once("line", resolve));
  lines.close();
}

/// One watch: resolves when it broke or there are so many events.
function watchOnce(config, seen, wanted) {
  return new Promise((resolve, reject) => {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const query = { labelSelector, resourceVersion: seen.revision, timeoutSeconds: 60 };
    const take = (type, object) => {
      seen.revision = object.metadata.resourceVersion;
      seen.events.push([type, object.metadata.name]);
      if (seen.events.length === wanted || seen.events.length === 1) resolve();
    };
    new k8s.Watch(config).watch(path, query, take, () => resolve()).catch(reject);
  });
}

async function follow(config, revision) {
  const seen = { revision, events: [] };
  await watchOnce(config, seen, 1);
  await restarted();
  while (seen.events.length < 4) await watchOnce(connect(), seen, 4);
  return seen.events;
}

async function patches(apps) {
  const labels = { app: "web" };
  const named = (name) => ({ name, image: "none" });
  const template = { metadata: { labels }, spec: { containers: [named("one")] } };
  const spec = { replicas: 0, selector: { matchLabels: labels }, template };
  await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "web" }, spec } });
  const send = (body, strategy) =>
    apps.patchNamespacedDeployment({ name: "web", namespace, body }, patch(strategy));
  const names = (deployment) => deployment.spec.template.spec.containers.map((c) => c.name);
  const changed = { spec: { template: { spec: { containers: [named("two")] } } } };
  const strategic = await send(changed, k8s.PatchStrategy.StrategicMergePatch);
  assert.deepEqual(names(strategic), ["two", "one"]);
  assert.deepEqual(names(await send(changed, k8s.PatchStrategy.MergePatch)), ["two"]);
  const operation = { op: "add", path: "/metadata/labels", value: { patched: "yes" } };
  const labelled = await send([operation], k8s.PatchStrategy.JsonPatch);
  assert.deepEqual(labelled.metadata.labels, { patched: "yes" });
}

async function apply(core) {
  const send = (fieldManager, key, force) => {
    const metadata = { name: "applied" };
    const body = { apiVersion: "v1", kind: "ConfigMap", metadata, data: { key } };
    const what = { name: "applied", namespace, body, fieldManager, force };
    return core.patchNamespacedConfigMap(what, patch(k8s.PatchStrategy.ServerSideApply));
  };
  await send("first", "1", false);
  await assert.rejects(send("second", "2", false), { code: 409 });
  const taken = await send("second", "2", true);
  assert.deepEqual(taken.data, { key: "2" });
  assert.ok(taken.metadata.managedFields.some((field) => field.manager === "second"));
}

async function exec(config) {
  let said = "";
  const collect = () =>
    new Writable({
      write(chunk, _, done) {
        said += chunk;
        done();
      },
    });
  const command = ["/trireme", "--version"];
  const status = await new Promise((resolve, reject) => {
    const started = new k8s.Exec(config).exec(
      "default", "echo", "echo", command, collect(), collect(), null, false, resolve);
    started.catch(reject);
  });
  assert.equal(status.status, "Success");
  assert.match(said, /trireme/);
}

let config = connect();
let core = config.makeApiClient(k8s.CoreV1Api);
const listed = await core.listNamespacedConfigMap({ namespace, labelSelector });
assert.deepEqual(listed.items, []);
const metadata = { name: "a", labels: { test: "clients" } };
await core.createNamespacedConfigMap({ namespace, body: { metadata } });
const events = await follow(config, listed.metadata.resourceVersion);
assert.deepEqual(events, [["ADDED", "a"], ["ADDED", "b"], ["ADDED", "c"], ["DELETED", "a"]]);
config = connect();
core = config.makeApiClient(k8s.CoreV1Api);
await patches(config.makeApiClient(k8s.AppsV1Api));
await apply(core);
const logs = await core.readNamespacedPodLog({ name: "echo", namespace: "default" });
assert.match(logs, /demo v1 on echo/);
await exec(config);
process.exit(0);
