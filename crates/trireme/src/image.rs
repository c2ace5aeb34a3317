//! `trireme image`: the images of a running cluster or node, and new ones.

mod build;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::cluster::{ClusterPaths, NameArg};
use crate::control::{ImageRow, Outcome, Request, ask};

#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    cluster: NameArg,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build an image from a Dockerfile into every node, without a daemon.
    Build(Box<build::BuildArgs>),
    /// Load a docker or OCI archive into every node.
    Import {
        /// A tar file, plain or compressed.
        archive: PathBuf,
        /// Further names for the image.
        #[arg(long = "as")]
        names: Vec<String>,
    },
    /// Write an image to a file, as an OCI archive that other tools import.
    Export {
        name: String,
        /// The file; it is replaced.
        archive: PathBuf,
        /// Names for the image in the archive, instead of its own.
        #[arg(long = "as")]
        names: Vec<String>,
    },
    /// Show the images there are.
    List,
    /// Keep an image, used or not, from garbage collection.
    Pin { name: String },
    /// Fetch an image from its registry.
    Pull { name: String },
    /// Send an image to its registry; prints its name there with the digest.
    Push {
        name: String,
        /// Another name to push it under.
        #[arg(long = "as")]
        to: Option<String>,
        /// Who pushes; the password is read from the variable `TRIREME_REGISTRY_PASSWORD`.
        #[arg(long, default_value = "")]
        username: String,
    },
    /// Delete an image that no container uses.
    Remove { name: String },
    /// Let garbage collection have an image again.
    Unpin { name: String },
}

pub(crate) fn run(args: ImageArgs) -> Result<()> {
    let paths = ClusterPaths::new(&args.cluster.name)?;
    let request = match args.action {
        Action::Build(args) => return build::run(*args, &paths),
        Action::Import { archive, names } => {
            let path =
                archive.canonicalize().with_context(|| format!("find {}", archive.display()))?;
            Request::Import { path, names }
        }
        Action::Export { name, archive, names } => {
            Request::Export { name, names, path: std::path::absolute(archive)? }
        }
        Action::List => Request::List,
        Action::Pin { name } => Request::Pin { name, pinned: true },
        Action::Unpin { name } => Request::Pin { name, pinned: false },
        Action::Pull { name } => Request::Pull { name },
        Action::Push { name, to, username } => {
            let to = to.unwrap_or_else(|| name.clone());
            // Not a flag: command lines can be read by others.
            let password = std::env::var("TRIREME_REGISTRY_PASSWORD").unwrap_or_default();
            Request::Push { name, to, username, password }
        }
        Action::Remove { name } => Request::Remove { name },
    };
    match ask(&paths.control_socket(), &request)? {
        Outcome::Images(rows) => print(&rows),
        Outcome::Pushed(name) => println!("{name}"),
    }
    Ok(())
}

fn print(rows: &[ImageRow]) {
    println!("{:<50} {:<14} {:>10}  PINNED", "IMAGE", "ID", "SIZE");
    for row in rows {
        let id: String = row.id.trim_start_matches("sha256:").chars().take(12).collect();
        let size = format!("{:.1} MiB", row.size as f64 / f64::from(1 << 20));
        let pinned = if row.pinned { "yes" } else { "no" };
        // Images without a name are there, too.
        let none = ["<none>".to_owned()];
        let names = if row.names.is_empty() { &none[..] } else { &row.names[..] };
        for name in names {
            println!("{name:<50} {id:<14} {size:>10}  {pinned}");
        }
    }
}
