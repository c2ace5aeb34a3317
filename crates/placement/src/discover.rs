//! Reads the machine from `/sys`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cpuset::CpuSet;
use crate::machine::{Cpu, CpuTopology, Machine, NumaNode};

/// Files of `/sys` are a page at most.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    read(path)?.parse().ok()
}

fn list(path: &Path) -> Option<CpuSet> {
    CpuSet::parse(&read(path)?).ok()
}

/// Entries of a directory that are a name with a number behind it.
fn numbered(dir: &Path, name: &str) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|e| {
            let id = e.file_name().to_str()?.strip_prefix(name)?.parse().ok()?;
            Some((id, e.path()))
        })
        .collect();
    found.sort();
    found
}

/// Bytes of a page, and how many of them there are.
pub fn huge_pages(dir: &Path) -> Vec<(u64, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, u64)> = entries
        .filter_map(|e| {
            let name = e.file_name();
            let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            let size: u64 = kib.parse().ok()?;
            Some((size.checked_mul(1024)?, number(&e.path().join("nr_hugepages"))?))
        })
        .collect();
    found.sort_unstable();
    found
}

fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|l| l.split_once("MemTotal:"));
    let kib = line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn node(id: usize, dir: &Path) -> NumaNode {
    let distances = read(&dir.join("distance")).unwrap_or_default();
    NumaNode {
        id,
        memory_bytes: memory(&read(&dir.join("meminfo")).unwrap_or_default()),
        huge_pages: huge_pages(&dir.join("hugepages")),
        distances: distances.split_whitespace().filter_map(|d| d.parse().ok()).collect(),
    }
}

/// The lowest CPU that shares the last-level cache, or the CPU's socket where caches are not told.
fn uncore(cpu: &Path, socket: usize) -> usize {
    let caches = numbered(&cpu.join("cache"), "index");
    let last = caches.iter().find(|(_, dir)| number::<u32>(&dir.join("level")) == Some(3));
    let shared = last.and_then(|(_, dir)| list(&dir.join("shared_cpu_list")));
    shared.and_then(|cpus| cpus.iter().next()).unwrap_or(socket)
}

fn cpu(id: usize, dir: &Path, numa: usize) -> Cpu {
    let topology = dir.join("topology");
    let siblings = list(&topology.join("core_cpus_list"))
        .or_else(|| list(&topology.join("thread_siblings_list")));
    let socket = number::<i64>(&topology.join("physical_package_id")).unwrap_or(0);
    let socket = usize::try_from(socket).unwrap_or(0);
    let core = siblings.and_then(|all| all.iter().next()).unwrap_or(id);
    Cpu { numa, socket, core, uncore: uncore(dir, socket) }
}

/// The machine whose `/sys` is below `sys`. Without NUMA nodes there is one, with all memory.
pub fn discover(sys: &Path, memory_bytes: u64) -> Result<Machine, String> {
    let dirs = numbered(&sys.join("devices/system/node"), "node");
    let mut nodes: Vec<NumaNode> = dirs.iter().map(|(id, dir)| node(*id, dir)).collect();
    let mut homes = BTreeMap::new();
    for (id, dir) in &dirs {
        let cpus = list(&dir.join("cpulist")).unwrap_or_default();
        homes.extend(cpus.iter().map(|cpu| (cpu, *id)));
    }
    if nodes.is_empty() {
        let huge_pages = huge_pages(&sys.join("kernel/mm/hugepages"));
        nodes.push(NumaNode {
            memory_bytes,
            huge_pages,
            distances: vec![10],
            ..NumaNode::default()
        });
    }
    let top = sys.join("devices/system/cpu");
    let online = list(&top.join("online"));
    let on = |id: &usize| online.as_ref().is_none_or(|all| all.contains(*id));
    let cpus = numbered(&top, "cpu").into_iter().filter(|(id, _)| on(id));
    let cpus = cpus.map(|(id, dir)| (id, cpu(id, &dir, homes.get(&id).copied().unwrap_or(0))));
    let cpus = CpuTopology::new(cpus.collect());
    match cpus.cpus.all().is_empty() {
        true => Err("could not detect number of cpus".into()),
        false => Ok(Machine { cpus, nodes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_machine_is_read_from_sys() {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path();
        put(sys, "devices/system/cpu/online", "0-3\n");
        for (cpu, socket, core) in
            [(0, 0, "0,2"), (1, 1, "1,3"), (2, 0, "0,2"), (3, 1, "1,3"), (4, 0, "4")]
        {
            let dir = format!("devices/system/cpu/cpu{cpu}");
            put(sys, &format!("{dir}/topology/physical_package_id"), &format!("{socket}\n"));
            put(sys, &format!("{dir}/topology/core_cpus_list"), core);
            put(sys, &format!("{dir}/cache/index3/level"), "3\n");
            put(sys, &format!("{dir}/cache/index3/shared_cpu_list"), core);
        }
        for (id, cpus, distance) in [(0, "0,2", "10 21"), (1, "1,3", "21 10")] {
            let dir = format!("devices/system/node/node{id}");
            put(sys, &format!("{dir}/cpulist"), cpus);
            put(sys, &format!("{dir}/distance"), distance);
            put(sys, &format!("{dir}/meminfo"), &format!("Node {id} MemTotal:       2048 kB\n"));
            put(sys, &format!("{dir}/hugepages/hugepages-2048kB/nr_hugepages"), "4\n");
        }
        let machine = discover(sys, 0).unwrap();
        let cpus = &machine.cpus;
        assert_eq!((cpus.sockets, cpus.cores, cpus.numa_nodes, cpus.uncore_caches), (2, 2, 2, 2));
        assert_eq!(cpus.cpus.0[&3], Cpu { numa: 1, socket: 1, core: 1, uncore: 1 });
        assert!(!cpus.cpus.all().contains(4), "it is not online");
        assert_eq!(machine.nodes[1].huge_pages, [(2 << 20, 4)]);
        assert_eq!(machine.nodes[1].memory_bytes, 2 << 20);
        assert_eq!(machine.nodes[0].distances, [10, 21]);
    }

    #[test]
    fn this_machine_has_cpus_and_a_machine_without_is_refused() {
        let machine = discover(Path::new("/sys"), 1 << 30).unwrap();
        assert!(machine.cpus.cpus_per_core() >= 1 && !machine.nodes.is_empty());
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(discover(empty.path(), 0).unwrap_err(), "could not detect number of cpus");
    }
}
