//! Small files replaced atomically, with upstream's `.bak`. Spec `store.md` 9.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Error;

/// The files of `config/`.
#[derive(Clone)]
pub struct Documents {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Documents {
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, dir: root.join("config") }
    }

    /// Reads and parses a file; if that fails, its `.bak`. `None` if there is neither.
    pub fn read<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let path = self.dir.join(name);
        let first = self.parse(&path, &parse)?;
        match first {
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(ref reason)) => {
                tracing::error!(?path, reason, "cannot be read, trying its .bak");
            }
            None => {}
        }
        match (self.parse(&self.dir.join(format!("{name}.bak")), &parse)?, first) {
            (Some(Ok(value)), Some(Err(_))) => {
                // Out of the way, or the next write would make it the .bak.
                let damaged = self.dir.join(format!("{name}.damaged"));
                self.disk.rename(&path, &damaged).map_err(Error::io(&path))?;
                Ok(Some(value))
            }
            (Some(Ok(value)), _) => Ok(Some(value)),
            (None, None) => Ok(None),
            (Some(Err(reason)), _) | (None, Some(Err(reason))) => {
                Err(Error::Document { path, reason })
            }
            (None, Some(Ok(value))) => Ok(Some(value)),
        }
    }

    /// Replaces a file; what it held before is kept as `.bak`, unless that was nothing.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, bak) = (self.dir.join(name), self.dir.join(format!("{name}.bak")));
        let before = self.disk.read(&path).map_err(Error::io(&path))?;
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            self.disk.replace(&bak, &before).map_err(Error::io(&bak))?;
        }
        self.disk.replace(&path, content).map_err(Error::io(&path))
    }

    fn parse<T>(
        &self,
        path: &Path,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Result<T, String>>, Error> {
        let content = self.disk.read(path).map_err(Error::io(path))?;
        Ok(content.filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned())?;
            parse(text)
        }))
    }
}
