//! What hosts are told of the folders of `dev --plugin`: where the libraries that were built there lie.
//!
//! It is told by a config file that hosts lay over all other settings, and not by what is typed for them: a reload reads files
//! again, so a plugin that builds late joins hosts that run.
//!
//! Invariants: a plugin comes from one folder, the first that built it; whoever reads the file reads all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::exit::Exit;

use super::project::{Product, Trouble};

/// The products that hosts are told of.
#[derive(Debug)]
pub(super) struct Built {
    file: PathBuf,
    products: Vec<Product>,
    spared: BTreeSet<String>,
}

impl Built {
    /// None yet, which the file says as well.
    pub(super) fn new(file: PathBuf) -> std::io::Result<Self> {
        let built = Self { file, products: Vec::new(), spared: BTreeSet::new() };
        built.write()?;
        Ok(built)
    }

    /// Adds a product, unless its plugin is another folder's.
    pub(super) fn admit(&mut self, product: Product) -> Result<(), Trouble> {
        if let Some(first) = self.products.iter().find(|one| one.plugin == product.plugin) {
            let fault = format!(
                "{} and {} are both the plugin `{}`: give one of them another name in its `plugin!`, or leave one out of \
                 --plugin",
                first.folder.display(),
                product.folder.display(),
                product.plugin
            );
            return Err((fault, Exit::Usage));
        }
        self.products.push(product);
        self.write().map_err(|error| self.cannot(&error))
    }

    /// Takes a plugin back.
    pub(super) fn withdraw(&mut self, plugin: &str) -> Result<(), Trouble> {
        self.products.retain(|one| one.plugin != plugin);
        self.write().map_err(|error| self.cannot(&error))
    }

    /// Has hosts do without these plugins of the configuration for as long as no folder has built them.
    pub(super) fn spare(&mut self, plugins: BTreeSet<String>) -> Result<(), Trouble> {
        self.spared = plugins;
        self.write().map_err(|error| self.cannot(&error))
    }

    fn cannot(&self, error: &std::io::Error) -> Trouble {
        let file = self.file.display();
        (
            format!("{file} cannot be written ({error}): make room in the temporary directory"),
            Exit::Unexpected,
        )
    }

    fn write(&self) -> std::io::Result<()> {
        let mut plugins = Table::new();
        for plugin in &self.spared {
            plugins.insert(plugin.clone(), table("required", false).into());
        }
        for Product { plugin, library, .. } in &self.products {
            // Cargo tells it in JSON, so it is text.
            let library = library.display().to_string();
            plugins.insert(plugin.clone(), table("library", library).into());
        }
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, table("plugins", plugins).to_string())?;
        std::fs::rename(temporary, &self.file)
    }
}

fn table(key: &str, value: impl Into<Value>) -> Table {
    Table::from_iter([(key.to_owned(), value.into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(plugin: &str, folder: &str) -> Product {
        let folder = PathBuf::from(folder);
        Product { plugin: plugin.to_owned(), library: folder.join("lib \"x\".so"), folder }
    }

    #[test]
    fn hosts_do_without_a_plugin_that_is_not_built_and_have_it_when_it_is_from_the_first_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("built.toml");
        let told = || std::fs::read_to_string(&file).unwrap().parse::<Table>().unwrap();
        let mut built = Built::new(file.clone()).unwrap();
        assert_eq!(told(), "[plugins]".parse().unwrap());
        built.spare(BTreeSet::from(["shop".to_owned()])).unwrap();
        assert_eq!(told(), "plugins.shop.required = false".parse().unwrap());
        built.admit(product("shop", "/a")).unwrap();
        let from_a = "plugins.shop.library = '/a/lib \"x\".so'".parse().unwrap();
        assert_eq!(told(), from_a);
        let (fault, exit) = built.admit(product("shop", "/b")).unwrap_err();
        assert!(fault.contains("/a and /b are both the plugin `shop`"), "{fault}");
        assert_eq!((exit, told()), (Exit::Usage, from_a));
        built.withdraw("shop").unwrap();
        assert_eq!(told(), "plugins.shop.required = false".parse().unwrap());
    }
}
