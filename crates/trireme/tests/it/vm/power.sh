# Runs in the test's virtual machine, whose power is cut under load: what was acknowledged in earlier rounds is whole.
# "LOADED" is said when this round has done enough to lose something.
export TRIREME_ROOT=/var/lib/t KUBECONFIG=/var/lib/t/vm/kubeconfig
ok() { echo "OK $*"; }
bad() { echo "BAD $*"; }
modprobe virtio_pci; modprobe virtio_blk; modprobe loop
mkdir -p /var/lib/t
mount -t ext4 /dev/vda /var/lib/t || { bad "the disk"; exit 1; }
mkdir -p /var/lib/t/said
/trireme up -d --name vm || { bad up; cat /var/lib/t/vm/trireme.log; exit 1; }
grep -i -E "damaged|forgotten" /var/lib/t/vm/trireme.log
image() { /trireme image --name vm "$@"; }

# Exporting makes each layer's stream again and holds it against its digest.
image list >/tmp/images
for name in $(ls /var/lib/t/said | grep '^i'); do
  if ! grep -q "test.local/$name:1 " /tmp/images; then bad "image $name is gone"; cat /tmp/images
  elif image export "test.local/$name:1" /tmp/out.tar >/tmp/said 2>&1; then ok "image $name"
  else bad "image $name: $(cat /tmp/said)"; fi
  rm -f /tmp/out.tar
done
image import /image.tar >/dev/null || bad "image import"
until kubectl get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
cat >/tmp/pod <<'POD'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: v}
spec: {accessModes: [ReadWriteOnce], storageClassName: local, resources: {requests: {storage: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'i=$(cut -d" " -f1 /v/n || echo 0); while :; do i=$((i+1)); echo "$i $i" >/v/t; sync; mv /v/t /v/n; sync; sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: v}}]
POD
kubectl get pod writer >/dev/null 2>&1 || kubectl apply -f /tmp/pod || bad apply
number() { kubectl exec writer -- cat /v/n 2>/dev/null; }
end=$(($(cut -d. -f1 /proc/uptime) + 60))
until [ -n "$(number)" ] || [ "$(cut -d. -f1 /proc/uptime)" -gt "$end" ]; do sleep 0.5; done
n=$(number)
if [ "${n% *}" = "${n#* }" ] && [ "${n% *}" -ge "$(cat /var/lib/t/said/n 2>/dev/null || echo 1)" ]; then
  ok "the volume has $n"
else
  bad "the volume has '$n', acknowledged was $(cat /var/lib/t/said/n)"; kubectl describe pod writer; kubectl get pvc,pv
fi
if grep -q last /proc/cmdline; then exit 0; fi

# New layers, as docker archives, until the power is cut.
round=$(ls /var/lib/t/said | grep -c '^i')
while :; do
  round=$((round + 1)); name=i$round
  rm -rf /tmp/a; mkdir -p /tmp/a/fs; cd /tmp/a
  for f in 1 2 3 4; do dd if=/dev/urandom of=fs/$f bs=64k count=4 2>/dev/null; done
  tar -C fs -cf layer.tar .
  id=$(sha256sum layer.tar | cut -d' ' -f1)
  echo '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:'$id'"]}}' >c.json
  echo '[{"Config":"c.json","RepoTags":["test.local/'$name':1"],"Layers":["layer.tar"]}]' >manifest.json
  tar -cf ../a.tar layer.tar c.json manifest.json
  if image import /tmp/a.tar >/dev/null; then
    n=$(number); [ -n "$n" ] && echo "${n% *}" >/var/lib/t/said/n
    touch /var/lib/t/said/$name; sync
  else bad "import $name"; fi
  if [ -e /tmp/loaded ]; then echo "MORE"; else echo LOADED; touch /tmp/loaded; fi
done
