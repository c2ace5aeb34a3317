// fabric8's client: informers, watches over WebSocket, patches, apply, exec, logs, port-forward, a leader.

import io.fabric8.kubernetes.api.model.*;
import io.fabric8.kubernetes.api.model.apps.Deployment;
import io.fabric8.kubernetes.api.model.apps.DeploymentBuilder;
import io.fabric8.kubernetes.client.*;
import io.fabric8.kubernetes.client.dsl.base.PatchContext;
import io.fabric8.kubernetes.client.dsl.base.PatchType;
import io.fabric8.kubernetes.client.extended.leaderelection.*;
import io.fabric8.kubernetes.client.extended.leaderelection.resourcelock.LeaseLock;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.io.ByteArrayOutputStream;
import java.net.URL;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.Supplier;

public class Main {
    static final String SPACE = "fabric8";
    static final long PATIENCE = 60;

    static void equal(String what, Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) throw new AssertionError(what + ": " + got + ", not " + wanted);
    }

    static void eventually(String what, Supplier<Boolean> check) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE);
        Object last = false;
        while (System.nanoTime() < end) {
            try {
                if (check.get()) return;
            } catch (RuntimeException error) {
                last = error;
            }
            Thread.sleep(100);
        }
        throw new AssertionError(what + ": never, at last " + last);
    }

    static ConfigMap map(String name, String value) {
        return new ConfigMapBuilder().withNewMetadata().withName(name).addToLabels("app", "web").endMetadata()
            .addToData("k", value).build();
    }

    static void watches(KubernetesClient client) throws Exception {
        var seen = new LinkedBlockingQueue<String>();
        var watched = new Watcher<ConfigMap>() {
            public void eventReceived(Action action, ConfigMap one) {
                seen.add(action + " " + one.getData().get("k"));
            }
            public void onClose(WatcherException cause) {}
        };
        var maps = client.configMaps().inNamespace(SPACE);
        try (Watch ignored = maps.withLabel("app", "web").watch(watched)) {
            maps.resource(map("a", "1")).create();
            maps.withName("a").edit(one -> new ConfigMapBuilder(one).addToData("k", "2").build());
            maps.withName("a").patch(PatchContext.of(PatchType.JSON_MERGE), "{\"data\":{\"k\":\"3\"}}");
            maps.withName("a").patch(PatchContext.of(PatchType.JSON), "[{\"op\":\"replace\",\"path\":\"/data/k\",\"value\":\"4\"}]");
            maps.withName("a").delete();
            for (String wanted : List.of("ADDED 1", "MODIFIED 2", "MODIFIED 3", "MODIFIED 4", "DELETED 4"))
                equal("event", seen.poll(PATIENCE, TimeUnit.SECONDS), wanted);
        }
    }

    static void informers(KubernetesClient client) throws Exception {
        var seen = new LinkedBlockingQueue<String>();
        var handler = new ResourceEventHandler<ConfigMap>() {
            public void onAdd(ConfigMap one) { seen.add("add " + one.getMetadata().getName()); }
            public void onUpdate(ConfigMap old, ConfigMap one) { seen.add("update " + one.getData().get("k")); }
            public void onDelete(ConfigMap one, boolean unknown) { seen.add("delete"); }
        };
        var maps = client.configMaps().inNamespace(SPACE);
        maps.resource(map("before", "1")).create();
        try (var informer = maps.withLabel("app", "web").inform(handler)) {
            equal("event", seen.poll(PATIENCE, TimeUnit.SECONDS), "add before");
            maps.resource(map("before", "2")).serverSideApply();
        } catch (KubernetesClientException conflict) {
            equal("the conflict's code", conflict.getCode(), 409);
        }
        try (var informer = maps.withLabel("app", "web").inform(handler)) {
            equal("event", seen.poll(PATIENCE, TimeUnit.SECONDS), "add before");
            maps.resource(map("before", "2")).forceConflicts().serverSideApply();
            equal("event", seen.poll(PATIENCE, TimeUnit.SECONDS), "update 2");
            maps.withName("before").delete();
            equal("event", seen.poll(PATIENCE, TimeUnit.SECONDS), "delete");
        }
    }

    static void workload(KubernetesClient client) throws Exception {
        Deployment web = new DeploymentBuilder().withNewMetadata().withName("web").endMetadata().withNewSpec()
            .withReplicas(1).withNewSelector().addToMatchLabels("app", "web").endSelector()
            .withNewTemplate().withNewMetadata().addToLabels("app", "web").endMetadata().withNewSpec()
            .addNewContainer().withName("main").withImage("trireme.local/demo:v1").endContainer()
            .endSpec().endTemplate().endSpec().build();
        var deployments = client.apps().deployments().inNamespace(SPACE);
        deployments.resource(web).create();
        deployments.withName("web").waitUntilReady(PATIENCE, TimeUnit.SECONDS);
        deployments.withName("web").scale(2);
        eventually("two pods", () -> deployments.withName("web").get().getStatus().getReadyReplicas() == 2);
        var pods = client.pods().inNamespace(SPACE);
        String name = pods.withLabel("app", "web").list().getItems().get(0).getMetadata().getName();
        eventually("a log", () -> !pods.withName(name).getLog().isEmpty());
        try (LocalPortForward forward = pods.withName(name).portForward(8080)) {
            URL address = new URL("http://127.0.0.1:" + forward.getLocalPort() + "/");
            eventually("an answer", () -> {
                try (var in = address.openStream()) {
                    return in.readAllBytes().length > 0;
                } catch (java.io.IOException error) {
                    throw new RuntimeException(error);
                }
            });
        }
        deployments.withName("web").rolling().restart();
        deployments.withName("web").withTimeout(PATIENCE, TimeUnit.SECONDS).delete();
    }

    static void commands(KubernetesClient client) throws Exception {
        Pod shell = new PodBuilder().withNewMetadata().withName("shell").endMetadata().withNewSpec()
            .addNewContainer().withName("main").withImage("trireme.local/busybox:v1")
            .withCommand("sleep", "3600").endContainer().endSpec().build();
        var pod = client.pods().inNamespace(SPACE).resource(shell);
        pod.create();
        pod.waitUntilReady(PATIENCE, TimeUnit.SECONDS);
        var out = new ByteArrayOutputStream();
        var err = new ByteArrayOutputStream();
        String script = "read line; echo got $line; echo err >&2; exit 7";
        try (var run = pod.redirectingInput().writingOutput(out).writingError(err).exec("sh", "-c", script)) {
            run.getInput().write("hello\n".getBytes());
            run.getInput().flush();
            equal("exit code", run.exitCode().get(PATIENCE, TimeUnit.SECONDS), 7);
        }
        equal("output", out + "" + err, "got hello\nerr\n");
        byte[] content = new byte[300_000];
        new Random(1).nextBytes(content);
        var file = pod.file("/tmp-file");
        equal("upload", file.upload(new java.io.ByteArrayInputStream(content)), true);
        try (var in = file.read()) {
            equal("download", Arrays.equals(in.readAllBytes(), content), true);
        }
    }

    static void leader(KubernetesClient client) throws Exception {
        var leading = new CountDownLatch(1);
        var lock = new LeaseLock(SPACE, "leader", "one");
        var callbacks = new LeaderCallbacks(leading::countDown, () -> {}, who -> {});
        var config = new LeaderElectionConfigBuilder().withName("test").withLock(lock)
            .withLeaseDuration(Duration.ofSeconds(15)).withRenewDeadline(Duration.ofSeconds(10))
            .withRetryPeriod(Duration.ofSeconds(2)).withLeaderCallbacks(callbacks).withReleaseOnCancel(true).build();
        var running = client.leaderElector().withConfig(config).build().start();
        equal("leading", leading.await(PATIENCE, TimeUnit.SECONDS), true);
        running.cancel(true);
        var leases = client.leases().inNamespace(SPACE).withName("leader");
// This client gives a lease up by making it short.
        eventually("released", () -> leases.get().getSpec().getLeaseDurationSeconds() == 1);
    }

    static void generic(KubernetesClient client) throws Exception {
        String document = """
            apiVersion: v1
            kind: Service
            metadata: {name: web}
            spec: {ports: [{port: 80}], selector: {app: web}}
            ---
            apiVersion: policy/v1
            kind: PodDisruptionBudget
            metadata: {name: web}
            spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
            """;
        var list = client.load(new java.io.ByteArrayInputStream(document.getBytes())).inNamespace(SPACE);
        equal("made", list.serverSideApply().size(), 2);
        equal("read", list.get().size(), 2);
        list.delete();
        var any = client.genericKubernetesResources("v1", "ConfigMap").inNamespace(SPACE).list();
        equal("maps", any.getItems().stream().map(one -> one.getMetadata().getName()).toList(), List.of("kube-root-ca.crt"));
        equal("version", client.getKubernetesVersion().getMajor(), "1");
        equal("supported", client.supports(Deployment.class), true);
    }

    public static void main(String[] args) throws Exception {
        try (KubernetesClient client = new KubernetesClientBuilder().build()) {
            client.namespaces().resource(new NamespaceBuilder().withNewMetadata().withName(SPACE).endMetadata().build()).create();
            eventually("the account", () -> client.serviceAccounts().inNamespace(SPACE).withName("default").get() != null);
            eventually("the authority", () -> client.configMaps().inNamespace(SPACE).withName("kube-root-ca.crt").get() != null);
            watches(client);
            informers(client);
            generic(client);
            workload(client);
            commands(client);
            leader(client);
        }
        System.exit(0);
    }
}
