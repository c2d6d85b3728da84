//! Layering, and the exact words for each kind of mistake.

use std::path::Path;

use super::*;

mod layers;
mod mistakes;

/// A directory with files, and the sources to read from it.
struct Case {
    directory: tempfile::TempDir,
    sources: Sources,
}

fn case() -> Case {
    Case { directory: tempfile::tempdir().unwrap(), sources: Sources::default() }
}

impl Case {
    fn write(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.sources.files.push(self.directory.path().join(name));
        self.write(name, text)
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, assignment: &str) -> Self {
        self.sources.assignments.push(assignment.parse().unwrap());
        self
    }

    fn last_file(mut self, name: &str, text: &str) -> Self {
        self.sources.last_file = Some(self.directory.path().join(name));
        self.write(name, text)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn load(&self) -> Settings {
        load(&self.sources).unwrap()
    }

    /// The rendered mistakes, without the directory.
    fn mistakes(&self) -> String {
        load(&self.sources).unwrap_err().to_string().replace(&format!("{}/", self.path().display()), "")
    }
}

#[track_caller]
fn says(case: &Case, expected: &str) {
    assert_eq!(case.mistakes().trim_end(), expected.trim_matches('\n'), "got:\n{}", case.mistakes());
}
