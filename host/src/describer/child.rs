//! The hidden child of `check` and of API instances: opens libraries and lets plugins describe themselves.
//!
//! Plugin code may crash, hang, exit, print and read. So it runs here, in a process made for it, which tells every
//! step before it is taken: whoever reads knows which plugin was at work when the lines end.
//!
//! ```text
//! stdin   one line: Request                       then open for as long as the asker lives
//! stdout  one line per step: Report::Step         last line: Report::Done
//! ```
//!
//! Invariants: plugins find `/dev/null` as stdin and stderr as stdout, so that they can neither break the
//! conversation nor be held up by it. The process ends at once when the asker is gone.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config;
use crate::exit::Exit;
use crate::loader::{self, Code, Description, LoadStep, Refusal, Source, Trust, Vetted};

/// What to describe.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) plugins: Vec<Wanted>,
    /// Libraries that the asker has judged already: each is described for itself.
    #[serde(default)]
    pub(crate) vetted: Vec<Vetted>,
    pub(crate) cache_dir: Option<PathBuf>,
    /// What is asked of libraries: the child judges the bytes that it opens.
    pub(crate) trust: config::Trust,
}

impl Request {
    /// Takes a plugin out; answers its library.
    pub(crate) fn remove(&mut self, plugin: &str) -> Option<PathBuf> {
        if let Some(at) = self.plugins.iter().position(|one| one.name == plugin) {
            return Some(self.plugins.remove(at).library);
        }
        let at = self.vetted.iter().position(|one| one.name() == plugin)?;
        Some(self.vetted.remove(at).library)
    }
}

/// One plugin of the configuration. Its settings are not here: describing does not need them, and they may hold
/// secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) library: PathBuf,
    pub(crate) prefix: String,
    /// It is a previous library of the plugin, which is mounted nowhere.
    pub(crate) is_previous: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// A step that runs plugin code begins, or, with `None`, the last one is over.
    Step(Option<Step>),
    /// What a vetted library declares.
    Declared { plugin: String, json: String },
    /// All is told.
    Done { described: Vec<Description>, refused: Vec<Refused> },
}

/// A step that runs plugin code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) plugin: String,
    pub(crate) step: String,
}

impl From<LoadStep<'_>> for Step {
    fn from(LoadStep { plugin, step, .. }: LoadStep<'_>) -> Self {
        Self { plugin: plugin.to_owned(), step: step.to_owned() }
    }
}

/// A refusal on its way between processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    plugin: String,
    file: PathBuf,
    code: Code,
    fault: String,
    remedy: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let Refusal { plugin, file, code, fault, remedy } = refusal;
        Self { plugin, file, code, fault, remedy }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let Refused { plugin, file, code, fault, remedy } = refused;
        Self { plugin, file, code, fault, remedy }
    }
}

/// Describes what stdin asks for. Does not return where all went well: plugin threads may still run, and what an
/// ordinary exit would tear down under them could crash.
pub fn run() -> Exit {
    match describe() {
        Ok(()) => loader::exit_now(0),
        Err(error) => {
            let told = "`describe-child` is a command that cardcage gives itself; use `cardcage check`";
            // Whoever typed it may have closed stderr.
            let _ = writeln!(std::io::stderr().lock(), "cardcage: {told} ({error})");
            Exit::Unexpected
        }
    }
}

fn describe() -> std::io::Result<()> {
    let (request, mut answer) = take_over()?;
    let sources: Vec<Source> = request
        .plugins
        .iter()
        .map(|Wanted { name, library, prefix, is_previous }| Source {
            name: name.clone(),
            library: library.clone(),
            prefix: prefix.clone(),
            config: serde_json::Value::Null,
            threads: None,
            // What the author says is what the operator's limits are held against.
            tasks: std::collections::BTreeMap::new(),
            schedules: std::collections::BTreeMap::new(),
            is_previous: *is_previous,
        })
        .collect();
    let trust = Trust::read(&request.trust);
    let mut broken = None;
    let (described, refused) =
        loader::describe_all(&sources, request.cache_dir.as_ref(), &trust, &mut |step| {
            let step = step.map(Step::from);
            // Whoever asked is gone: the thread that reads stdin ends this process.
            if let Err(error) = tell(&mut answer, &Report::Step(step)) {
                broken = Some(error);
            }
        });
    if let Some(error) = broken.take() {
        return Err(error);
    }
    let mut refused: Vec<Refused> = refused.into_iter().map(Refused::from).collect();
    for library in &request.vetted {
        let declared = library.declare(&mut |step| {
            let step = step.map(Step::from);
            if let Err(error) = tell(&mut answer, &Report::Step(step)) {
                broken = Some(error);
            }
        });
        if let Some(error) = broken {
            return Err(error);
        }
        match declared {
            Ok(json) => {
                tell(&mut answer, &Report::Declared { plugin: library.name().to_owned(), json })?;
            }
            Err(refusal) => refused.push(refusal.into()),
        }
    }
    let described = described.into_iter().map(|(_, description)| (*description).clone()).collect();
    tell(&mut answer, &Report::Done { described, refused })
}

fn tell(answer: &mut File, report: &Report) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    answer.write_all(&line)
}

/// Reads the request and takes stdin and stdout away from plugin code.
fn take_over() -> std::io::Result<(Request, File)> {
    let stdin: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let answer: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(std::io::stderr().as_fd())?;
    let mut stdin = BufReader::new(File::from(stdin));
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    let request = serde_json::from_str(&line)?;
    std::thread::Builder::new().name("asker".to_owned()).spawn(move || {
        // Nothing more is said: its end is all there is to read. An error is as good as the end.
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
        loader::exit_now(i32::from(Exit::Unexpected.code()));
    })?;
    Ok((request, File::from(answer)))
}
