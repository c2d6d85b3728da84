//! A step of loading in which a plugin's code runs, told before it is taken: whoever reads it knows who was at work when nothing
//! more is said.

/// A step that is taken next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadStep<'a> {
    /// The plugin's name.
    pub plugin: &'a str,
    /// Its version.
    pub version: &'a str,
    /// `open`, `describe` or `init`.
    pub step: &'static str,
    /// In `init`: the number that the board has it by from now on.
    pub index: Option<u32>,
}

impl<'a> LoadStep<'a> {
    /// A step before the plugin is started.
    pub(super) const fn before(step: &'static str, plugin: &'a str, version: &'a str) -> Self {
        Self { plugin, version, step, index: None }
    }
}

/// Called before each step that runs plugin code, on the thread that takes it, and with `None` when none runs any more.
pub type OnStep<'a> = &'a mut dyn FnMut(Option<LoadStep<'_>>);
