//! Who the container runs as: numbers, or names out of the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::cri::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use crate::error::{Error, Result};

/// Bytes read of a user file: an image must not make us read without end.
const MAX_FILE: u64 = 4 << 20;
/// The largest user or group id: upstream's and runc's. The kernel takes all ones for "leave it as it is",
/// which would be root (CVE-2024-40635).
const MAX_ID: u32 = i32::MAX as u32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The user files' texts.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Files {
    /// Reads them from the layers, topmost first; symbolic links stay inside their layer.
    pub(crate) fn read(layers: &[PathBuf]) -> Files {
        let find = |name: &str| layers.iter().find_map(|l| read_in(l, name)).unwrap_or_default();
        Files { passwd: find("etc/passwd"), group: find("etc/group") }
    }
}

fn read_in(layer: &Path, name: &str) -> Option<String> {
    use rustix::fs::{OFlags, ResolveFlags};
    let dir = File::open(layer).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = crate::tree::open_resolved(&dir, Path::new(name), flags, resolve).ok()?;
    // A whiteout is a device: the file was removed in this layer. Other devices are never opened.
    if !File::from(found.try_clone().ok()?).metadata().ok()?.is_file() {
        return Some(String::new());
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of `/etc/passwd`: name, uid, gid, home.
fn accounts(text: &str) -> impl Iterator<Item = (&str, u32, u32, &str)> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        Some((*f.first()?, f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?, *f.get(5)?))
    })
}

/// A line of `/etc/group`: name, gid, members.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        Some((*f.first()?, f.get(2)?.parse().ok()?, f.get(3).copied().unwrap_or("")))
    })
}

/// The context's wishes first, then the image's `USER` (`user[:group]`), then root.
pub(crate) fn resolve(
    context: &LinuxContainerSecurityContext,
    image_user: &str,
    files: &Files,
) -> Result<User> {
    if context.run_as_group.is_some()
        && context.run_as_user.is_none()
        && context.run_as_username.is_empty()
    {
        return Err(Error::Invalid("run_as_group is set without a user".to_owned()));
    }
    let wanted = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    let wanted = known(wanted)?;
    let (user, group) = wanted.split_once(':').unwrap_or((&wanted, ""));
    let account = match user.parse::<u32>() {
        Ok(uid) => accounts(&files.passwd)
            .find(|a| a.1 == uid)
            .map(|a| (a.0, uid, a.2, a.3))
            .unwrap_or(("", uid, 0, "/")),
        Err(_) if user.is_empty() => {
            accounts(&files.passwd).find(|a| a.1 == 0).unwrap_or(("root", 0, 0, "/root"))
        }
        Err(_) => accounts(&files.passwd).find(|a| a.0 == user).ok_or_else(|| {
            Error::Invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            ))
        })?,
    };
    let (name, uid, mut gid, home) = account;
    if !group.is_empty() {
        gid = group_id(group, files)?;
    }
    if let Some(wanted) = &context.run_as_group {
        gid = id(wanted.value)?;
    }
    let mut all: Vec<u32> = vec![gid];
    if context.supplemental_groups_policy == SupplementalGroupsPolicy::Merge as i32 {
        let member = |list: &str| !name.is_empty() && list.split(',').any(|m| m == name);
        all.extend(groups(&files.group).filter(|g| member(g.2)).map(|g| g.1));
    }
    for group in &context.supplemental_groups {
        all.push(id(*group)?);
    }
    for id in all.iter().chain([&uid]) {
        known(id.to_string())?;
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|g| seen.insert(*g));
    Ok(User { uid, gid, groups: all, home: home.to_owned() })
}

/// Refuses numbers that are no id, before they are taken for names.
fn known(wanted: String) -> Result<String> {
    let number = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        all && text.parse::<u32>().is_ok_and(|id| id <= MAX_ID) != all
    };
    if wanted.split(':').any(number) {
        return Err(Error::Invalid(format!("user or group id {wanted} is not in 0 to {MAX_ID}")));
    }
    Ok(wanted)
}

fn id(value: i64) -> Result<u32> {
    let small = u32::try_from(value).ok().filter(|id| *id <= MAX_ID);
    small.ok_or_else(|| Error::Invalid(format!("user or group id {value} is not in 0 to {MAX_ID}")))
}

fn group_id(name: &str, files: &Files) -> Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let found = groups(&files.group).find(|g| g.0 == name).map(|g| g.1);
    found.ok_or_else(|| {
        Error::Invalid(format!("unable to find group {name}: no matching entries in group file"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::Int64Value;

    fn files() -> Files {
        Files {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n".to_owned(),
            group: "root:x:0:\nlog:x:4:web\nops:x:50:\n".to_owned(),
        }
    }

    fn check(context: LinuxContainerSecurityContext, image: &str, want: (u32, u32, &[u32], &str)) {
        let got = resolve(&context, image, &files()).unwrap();
        assert_eq!((got.uid, got.gid, &got.groups[..], got.home.as_str()), want);
    }

    #[test]
    fn names_and_numbers() {
        let none = LinuxContainerSecurityContext::default;
        check(none(), "", (0, 0, &[0], "/root"));
        check(none(), "web", (33, 34, &[34, 4], "/srv"));
        check(none(), "web:ops", (33, 50, &[50, 4], "/srv"));
        check(none(), "1000", (1000, 0, &[0], "/"));
        let by_number = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 33 }),
            run_as_group: Some(Int64Value { value: 7 }),
            supplemental_groups: vec![9, 7],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
            ..none()
        };
        check(by_number, "root", (33, 7, &[7, 9], "/srv"));
        assert!(resolve(&none(), "nobody-here", &files()).is_err());
    }

    #[test]
    fn a_group_needs_a_user() {
        let group = LinuxContainerSecurityContext {
            run_as_group: Some(Int64Value { value: 7 }),
            ..LinuxContainerSecurityContext::default()
        };
        let refused = resolve(&group, "web", &files()).unwrap_err();
        assert_eq!(refused.chain(), "invalid argument: run_as_group is set without a user");
        let named = LinuxContainerSecurityContext { run_as_username: "web".to_owned(), ..group };
        assert_eq!(resolve(&named, "", &files()).unwrap().gid, 7);
    }

    #[test]
    fn numbers_that_are_no_ids() {
        let files = Files {
            passwd: "all:x:4294967295:1::/:/bin/sh\nbig:x:1:4294967295::/:/bin/sh\n".to_owned(),
            group: "all:x:4294967295:\n".to_owned(),
        };
        let none = LinuxContainerSecurityContext::default;
        for user in
            ["4294967295", "2147483648", "-1", "4294967296", "1:4294967295", "all", "big", "1:all"]
        {
            assert!(resolve(&none(), user, &files).is_err(), "{user}");
        }
        for value in [-1, 1 << 31, 1 << 32] {
            let user =
                LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value }), ..none() };
            let group = LinuxContainerSecurityContext {
                run_as_user: Some(Int64Value { value: 0 }),
                run_as_group: Some(Int64Value { value }),
                supplemental_groups: vec![value],
                ..none()
            };
            assert!(resolve(&user, "", &files).is_err() && resolve(&group, "", &files).is_err());
        }
        assert!(resolve(&none(), "2147483647", &files).is_ok());
    }
}
