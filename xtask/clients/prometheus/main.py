"""Prometheus reads the metrics of the API server and of every node, through the API server's proxy.

Debian's build does not know Kubernetes' discovery, so nodes are named by hand.
"""

import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request

import cluster

NODE_PATHS = {"kubelet": "metrics", "cadvisor": "metrics/cadvisor", "resource": "metrics/resource"}
# Each has a value above zero on a cluster that runs a pod.
EXPRESSIONS = [
    'sum(apiserver_request_total{job="apiserver"})',
    'histogram_quantile(0.99, sum by (le) (apiserver_request_duration_seconds_bucket{job="apiserver"}))',
    'sum(kubelet_running_pods{job="kubelet"})',
    'sum(container_memory_working_set_bytes{job="cadvisor",pod="metered"})',
    'sum(node_memory_working_set_bytes{job="resource"})',
]
POD = """
apiVersion: v1
kind: Pod
metadata: {name: metered, namespace: prometheus}
spec: {containers: [{name: main, image: "trireme.local/demo:v1"}]}
"""


def credentials(folder):
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    user, server = view["users"][0]["user"], view["clusters"][0]["cluster"]
    files = {
        "ca_file": server["certificate-authority-data"],
        "cert_file": user["client-certificate-data"],
        "key_file": user["client-key-data"],
    }
    for name, data in files.items():
        (folder / name).write_bytes(base64.b64decode(data))
    return server["server"], {name: str(folder / name) for name in files}


def configuration(folder, server, tls):
    targets = [{"targets": [server.removeprefix("https://")]}]
    job = {"scheme": "https", "tls_config": tls, "scrape_interval": "1s", "static_configs": targets}
    jobs = [job | {"job_name": "apiserver"}]
    node = cluster.read("nodes")["items"][0]["metadata"]["name"]
    for name, path in NODE_PATHS.items():
        jobs.append(job | {"job_name": name, "metrics_path": f"/api/v1/nodes/{node}/proxy/{path}"})
    file = folder / "prometheus.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"scrape_configs": jobs}))
    return file


def ask(port, path, **query):
    address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)["data"]


def values(port, expression):
    return [float(one["value"][1]) for one in ask(port, "query", query=expression)["result"]]


def scraped(port, job):
    """Whether the last scrape worked; a wrong one is told by its error."""
    targets = ask(port, "targets")["activeTargets"]
    target = [one for one in targets if one["scrapePool"] == job][0]
    if target["lastError"]:
        raise RuntimeError(target["lastError"])
    return target["health"] == "up"


def check(port, prometheus):
    for job in ["apiserver", *NODE_PATHS]:
        cluster.eventually(f"{job} scraped", lambda: scraped(port, job), prometheus)
    for expression in EXPRESSIONS:
        cluster.eventually(expression, lambda: values(port, expression)[0] > 0, prometheus)


def listening(prometheus, log):
    """The port that the program chose, as its log tells."""

    def told():
        lines = [line for line in log.read_text().splitlines() if "Listening on" in line]
        return lines[0].split("address=")[1].split()[0].rsplit(":", 1)[1]

    return int(cluster.eventually("the port", told, prometheus))


def main():
    program = shutil.which("prometheus")
    assert program, "prometheus is not installed"
    cluster.kubectl("create", "namespace", "prometheus")
    account = ["serviceaccount", "default", "-n", "prometheus"]
    cluster.eventually("the account", lambda: cluster.read(*account))
    cluster.kubectl("apply", "-f", "-", document=POD)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        server, tls = credentials(folder)
        command = [program, f"--config.file={configuration(folder, server, tls)}"]
        command += [f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"]
        with open(folder / "log", "w+") as log:
            prometheus = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                check(listening(prometheus, folder / "log"), prometheus)
            except BaseException:
                print((folder / "log").read_text()[-4000:])
                raise
            finally:
                prometheus.terminate()
                prometheus.wait(timeout=30)


main()
