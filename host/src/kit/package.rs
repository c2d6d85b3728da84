//! What is handed over: a library, and beside it what it says of itself, so that others can read it without a host.
//!
//! Invariant: all of it is derived from the library's bytes and from what it declares.

use serde::Serialize;
use serde_json::Value;

use super::archive;
use crate::edge::openapi_of_plugin;
use crate::loader::inspect::sha256;
use crate::loader::{Description, Inspection};

/// A package's files, in their order.
#[derive(Debug)]
pub struct Package {
    /// `NAME-VERSION-TARGET`: the folder in the archive, and the archive's name without its end.
    pub stem: String,
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Package {
    /// Collects what belongs to a library with this file name.
    ///
    /// # Errors
    /// A sentence: something that was read cannot be written.
    pub fn new(
        file_name: &str,
        library: Vec<u8>,
        inspection: &Inspection,
        description: &Description,
    ) -> Result<Self, String> {
        let manifest = &inspection.manifest;
        let mut files = vec![
            (file_name.to_owned(), library),
            ("manifest.json".to_owned(), json(inspection)?),
            (
                "openapi.json".to_owned(),
                json(&openapi_of_plugin(description, &format!("/{}", manifest.name)))?,
            ),
            ("tasks.json".to_owned(), json(&description.tasks)?),
            ("schedules.json".to_owned(), json(&description.schedules)?),
            (
                "settings.schema.json".to_owned(),
                json(description.config_schema.as_ref().unwrap_or(&Value::Bool(true)))?,
            ),
        ];
        files.sort();
        let sums: String =
            files.iter().map(|(name, content)| format!("{}  {name}\n", sha256(content))).collect();
        files.push(("SHA256SUMS".to_owned(), sums.into_bytes()));
        // They become a file's name.
        let plain =
            |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.+".contains(c), "_");
        let stem = format!("{}-{}-{}", manifest.name, plain(&manifest.version), plain(&manifest.target));
        Ok(Self { stem, files })
    }

    /// The archive's file name.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.tar.zst", self.stem)
    }

    /// The archive.
    ///
    /// # Errors
    /// A sentence: the files cannot be packed.
    pub fn pack(&self) -> Result<Vec<u8>, String> {
        archive::pack(&self.stem, &self.files)
            .map_err(|error| format!("the package cannot be made ({error})"))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| {
        format!("what the plugin says cannot be written as JSON ({error}): a fault of cardcage")
    })?;
    text.push(b'\n');
    Ok(text)
}
