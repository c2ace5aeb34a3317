//! logind's part of a shutdown: it waits for those that hold a lock, as long as its settings allow.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dbus::{Arg, Bus, Message, Method};

const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const DELAY: &str = "InhibitDelayMaxUSec";
const RULE: &str = "type='signal',interface='org.freedesktop.login1.Manager',member='PrepareForShutdown',path='/org/freedesktop/login1'";
/// logind's settings that this node needs.
const OVERRIDE: &str = "99-kubelet.conf";
const RELOAD_STEPS: u32 = 5;
const RELOAD_FIRST: Duration = Duration::from_millis(100);

/// Where logind is reached, and where its settings lie.
#[derive(Debug, Clone)]
pub struct LogindPlaces {
    pub bus: PathBuf,
    pub settings: PathBuf,
}

impl Default for LogindPlaces {
    fn default() -> LogindPlaces {
        LogindPlaces {
            bus: "/run/dbus/system_bus_socket".into(),
            settings: "/etc/systemd/logind.conf.d".into(),
        }
    }
}

pub(super) struct Logind {
    bus: Bus,
}

fn manager(member: &str) -> Method<'_> {
    Method { destination: LOGIND, path: PATH, interface: MANAGER, member }
}

impl Logind {
    /// Connects, and makes logind wait as long as pods may take.
    pub(super) async fn open(places: &LogindPlaces, needed: Duration) -> io::Result<Logind> {
        let mut logind = Logind { bus: Bus::connect(&places.bus).await? };
        if logind.delay().await? < needed {
            write_override(&places.settings, needed)?;
            logind.reload(needed).await?;
        }
        logind.bus.subscribe(RULE).await?;
        Ok(logind)
    }

    async fn delay(&mut self) -> io::Result<Duration> {
        let get = Method {
            destination: LOGIND,
            path: PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let answer = self.bus.call(get, &[Arg::Text(MANAGER), Arg::Text(DELAY)]).await?;
        Ok(Duration::from_micros(answer.variant_u64()?))
    }

    /// logind reads its settings anew at a hang-up, which it does not answer.
    async fn reload(&mut self, needed: Duration) -> io::Result<()> {
        let kill = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "KillUnit",
        };
        let hang_up = [Arg::Text("systemd-logind.service"), Arg::Text("all"), Arg::Int(libc_hup())];
        self.bus.call(kill, &hang_up).await?;
        let mut found = Duration::ZERO;
        for step in 0..RELOAD_STEPS {
            tokio::time::sleep(RELOAD_FIRST * 2u32.pow(step)).await;
            found = self.delay().await?;
            if found >= needed {
                return Ok(());
            }
        }
        Err(io::Error::other(format!(
            "node shutdown manager was timed out after {RELOAD_STEPS} attempts waiting for logind InhibitDelayMaxSec to update to {needed:?} (ShutdownGracePeriod), current value is {found:?}"
        )))
    }

    /// A lock that delays a shutdown until it is dropped.
    pub(super) async fn inhibit(&mut self) -> io::Result<OwnedFd> {
        let args = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        self.bus.call(manager("Inhibit"), &args.map(Arg::Text)).await?.descriptor()
    }

    /// Whether a shutdown begins, or is cancelled; waits until one of the two is told.
    pub(super) async fn news(&mut self) -> io::Result<bool> {
        let told = |message: &Message| {
            message.is_signal()
                && message.interface == MANAGER
                && message.member == "PrepareForShutdown"
        };
        loop {
            let message = self.bus.next().await?;
            if told(&message) {
                return message.boolean();
            }
        }
    }
}

fn libc_hup() -> i32 {
    rustix::process::Signal::HUP.as_raw()
}

fn write_override(folder: &Path, needed: Duration) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let text =
        format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", needed.as_secs());
    std::fs::write(folder.join(OVERRIDE), text)
}
