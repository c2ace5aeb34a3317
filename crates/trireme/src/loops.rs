//! The loops of the control plane: controllers and scheduler on shared informers.

use anyhow::Result;
use client::{Informers, Tasks};

use crate::control_plane::ControlPlane;
use crate::pki_files::PkiFiles;

/// Starts what this build has; all of them work on `informers`.
pub(crate) async fn start(
    _plane: &ControlPlane,
    _informers: &Informers,
    _pki: &PkiFiles,
    _tasks: &Tasks,
) -> Result<()> {
    Ok(())
}
