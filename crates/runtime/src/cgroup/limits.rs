//! Limits: which value goes to which file is decided first (a list that tests compare), written after.

use std::fs;
use std::path::PathBuf;

use super::Group;
use crate::cri::LinuxContainerResources;
use crate::error::{Error, IoContext, Result};

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// Whether it may be missing: swap accounting is a boot option, for one.
    pub(super) optional: bool,
}

fn set(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting {
        controller,
        file: format!("{controller}.{file}"),
        value: value.to_string(),
        optional: false,
    }
}

fn try_set(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting { optional: true, ..set(controller, file, value) }
}

/// The controller of huge pages.
const HUGE_PAGES: &str = "hugetlb";

/// Microseconds of the CFS period when the caller names none: the kernel's own default.
const DEFAULT_PERIOD: i64 = 100_000;

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// The v1 files. Zero means "leave as it is" everywhere, as in the CRI.
pub(super) fn v1(r: &LinuxContainerResources) -> Vec<Setting> {
    let mut list = Vec::new();
    if r.cpu_shares > 0 {
        list.push(set("cpu", "shares", r.cpu_shares));
    }
    if r.cpu_period > 0 {
        list.push(set("cpu", "cfs_period_us", r.cpu_period));
    }
    if r.cpu_quota != 0 {
        list.push(set("cpu", "cfs_quota_us", r.cpu_quota));
    }
    cpuset(r, &mut list);
    if r.memory_limit_in_bytes != 0 {
        // Without the second one the container would swap past its limit.
        let swap = if r.memory_swap_limit_in_bytes != 0 {
            r.memory_swap_limit_in_bytes
        } else {
            r.memory_limit_in_bytes
        };
        list.push(set("memory", "limit_in_bytes", r.memory_limit_in_bytes));
        list.push(try_set("memory", "memsw.limit_in_bytes", swap));
    }
    for page in &r.hugepage_limits {
        list.push(set(HUGE_PAGES, &format!("{}.limit_in_bytes", page.page_size), page.limit));
    }
    // Optional keys of v2 that v1 has under the same name.
    if let Some(value) = r.unified.get("pids.max") {
        list.push(set("pids", "max", value));
    }
    list
}

/// The v2 files.
pub(super) fn v2(r: &LinuxContainerResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if r.cpu_shares > 0 {
        list.push(set("cpu", "weight", weight(r.cpu_shares)));
    }
    if r.cpu_quota != 0 || r.cpu_period > 0 {
        let period = if r.cpu_period > 0 { r.cpu_period } else { DEFAULT_PERIOD };
        let quota = if r.cpu_quota == 0 { "max".to_owned() } else { max_or(r.cpu_quota) };
        list.push(set("cpu", "max", format!("{quota} {period}")));
    }
    cpuset(r, &mut list);
    if r.memory_limit_in_bytes != 0 {
        list.push(set("memory", "max", max_or(r.memory_limit_in_bytes)));
        list.push(try_set("memory", "swap.max", swap_only(r)));
    }
    for page in &r.hugepage_limits {
        list.push(set(HUGE_PAGES, &format!("{}.max", page.page_size), page.limit));
    }
    for (key, value) in &r.unified {
        if key.contains('/') || !key.contains('.') || key.starts_with("cgroup.") {
            return Err(Error::Invalid(format!("unified resource {key:?}")));
        }
        list.push(Setting {
            controller: "",
            file: key.clone(),
            value: value.clone(),
            optional: key == "memory.swap.max",
        });
    }
    Ok(list)
}

/// v2 counts swap alone, the CRI memory and swap together.
fn swap_only(r: &LinuxContainerResources) -> String {
    if r.memory_swap_limit_in_bytes == 0 || r.memory_limit_in_bytes < 0 {
        return "0".to_owned();
    }
    if r.memory_swap_limit_in_bytes < 0 {
        return "max".to_owned();
    }
    (r.memory_swap_limit_in_bytes - r.memory_limit_in_bytes).max(0).to_string()
}

fn cpuset(r: &LinuxContainerResources, list: &mut Vec<Setting>) {
    if !r.cpuset_cpus.is_empty() {
        list.push(set("cpuset", "cpus", &r.cpuset_cpus));
    }
    if !r.cpuset_mems.is_empty() {
        list.push(set("cpuset", "mems", &r.cpuset_mems));
    }
}

/// Shares (2 to 262144, 1024 as the norm) as a weight (1 to 10000, 100 as the norm): the quadratic fit
/// that runc and crun use, which maps 2 to 1, 1024 to 100 and 262144 to 10000.
pub(super) fn weight(shares: i64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

impl Group {
    /// Applies limits; a controller the machine lacks is an error only if a limit needs it.
    pub fn apply(&self, resources: &LinuxContainerResources) -> Result<()> {
        let settings = if self.is_v2() { v2(resources)? } else { v1(resources) };
        self.write(&settings).or_else(|e| self.retry_lowered(&settings, e))
    }

    /// v1 wants `limit <= memsw` at any moment: raising a limit needs the other order.
    fn retry_lowered(&self, settings: &[Setting], first: Error) -> Result<()> {
        let reversed: Vec<Setting> = settings.iter().rev().cloned().collect();
        if self.is_v2() || !settings.iter().any(|s| s.file == "memory.memsw.limit_in_bytes") {
            return Err(first);
        }
        self.write(&reversed)
    }

    fn write(&self, settings: &[Setting]) -> Result<()> {
        for setting in settings {
            let file = self.file(setting);
            // Every container says how many huge pages it may use; without the controller it may use what is there.
            if setting.controller == HUGE_PAGES && !file.as_ref().is_some_and(|path| path.exists())
            {
                continue;
            }
            let Some(path) = file else {
                let what = setting.controller;
                return Err(Error::Unsupported(format!(
                    "cgroup controller {what} is not available"
                )));
            };
            match fs::write(&path, &setting.value) {
                Err(_) if setting.optional => {}
                done => done.at("write", &path)?,
            }
        }
        Ok(())
    }

    fn file(&self, setting: &Setting) -> Option<PathBuf> {
        let v1 = self.v1_dir(setting.controller);
        let unified = || self.unified_dir().filter(|_| self.is_v2());
        v1.or_else(unified).map(|dir| dir.join(&setting.file))
    }
}
