# Runs in the test's virtual machine: a cluster on cgroup v2 alone, from `up` to `down`. Each line
# that begins with "OK" or "BAD" is one check.
export TRIREME_ROOT=/var/lib/t KUBECONFIG=/var/lib/t/vm/kubeconfig
ok() { echo "OK $*"; }
bad() { echo "BAD $*"; }
expect() { # what, wanted, is
  if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: wanted $2, is $3"; fi
}
now() { cut -d. -f1 /proc/uptime; }
until_true() { # seconds, command
  end=$(($(now) + $1)); shift
  while [ "$(now)" -lt "$end" ]; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  return 1
}
group_of() { find /sys/fs/cgroup/trireme -type d | while read -r d; do
  for pid in $(cat "$d/cgroup.procs" 2>/dev/null); do
    if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"; then echo "$d"; fi
  done
done; }

expect "cgroup file systems" "cgroup2" "$(awk '$3 ~ /cgroup/ {print $3}' /proc/mounts | sort -u)"
/trireme doctor || bad "doctor"
/trireme up -d --name vm || { bad "up"; cat /var/lib/t/vm/trireme.log; exit 1; }
/trireme image --name vm import /image.tar >/dev/null || bad "image import"

cat >/tmp/pods <<'POD'
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sleep, "31337"]
    resources: {limits: {memory: 64Mi, cpu: 500m}, requests: {memory: 32Mi, cpu: 250m}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, "sleep 1 & dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 31338"]
    resources: {limits: {memory: 32Mi}}
POD
until_true 10 kubectl get serviceaccount default
kubectl apply -f /tmp/pods || bad "apply"
if kubectl wait --for=condition=Ready pod/limited --timeout=60s; then ok "a limited pod runs"; else
  bad "a limited pod runs"; kubectl describe pod limited; cat /var/lib/t/vm/trireme.log
fi
group=$(group_of "sleep 31337")
echo "its cgroup: $group"
expect "memory.max" 67108864 "$(cat "$group/memory.max")"
expect "cpu.max" "50000 100000" "$(cat "$group/cpu.max")"
# 250 milli-CPU are 256 shares, which cgroup v2 counts from 1 to 10,000 as weights.
expect "cpu.weight is set" yes "$([ "$(cat "$group/cpu.weight")" -lt 100 ] && echo yes)"
expect "the pod's own group is limited" 67108864 "$(cat "$group/../memory.max")"
expect "exec" "through" "$(kubectl exec limited -- echo through)"
expect "the container sees its limit" 67108864 "$(kubectl exec limited -- cat /sys/fs/cgroup/memory.max)"
kubectl exec limited -- sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>/dev/null
expect "the container cannot raise it" 67108864 "$(cat "$group/memory.max")"
reason() { [ "$(kubectl get pod greedy -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}')" = OOMKilled ]; }
if until_true 30 reason; then ok "too much memory kills the whole container"; else
  bad "too much memory kills the whole container"; kubectl get pod greedy -o yaml
fi
stats=$(kubectl get --raw /api/v1/nodes/vm-1/proxy/stats/summary)
case $stats in *workingSetBytes*) ok "statistics" ;; *) bad "statistics: $stats" ;; esac

kubectl delete pod limited greedy --timeout=30s >/dev/null || bad "delete"
if until_true 10 test ! -d "$group"; then ok "a deleted pod's cgroup is gone"; else bad "cgroup stays: $group"; fi
kubectl run left --image=test.local/busybox:1 --restart=Never -- sleep 31339 >/dev/null
kubectl wait --for=condition=Ready pod/left --timeout=30s >/dev/null || bad "another pod"
/trireme down --name vm || bad "down"
expect "cgroups after down" "" "$(find /sys/fs/cgroup -name '*trireme*' -o -name '*pod*')"
expect "processes after down" "" "$(ps -o args | grep -E 'trireme|31339' | grep -v grep)"
expect "mounts after down" "" "$(grep /var/lib/t /proc/mounts)"
