//! Lets plugins describe themselves in a child, and draws the conclusions when it dies.
//!
//! Invariants: a plugin that takes the child down or hangs is refused by name, and the others are described in a
//! new child without it; so there are at most as many children as plugins, plus one. No child outlives this.

pub mod child;

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines, Take};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::config::Settings;
use crate::loader::{Code, Description, Refusal, Vetted};
use crate::process::{Death, SelfExecutable, culprit};
use child::{Report, Request, Step};

pub(crate) use child::Wanted;

/// The most that a child may say: 128 MiB.
const ANSWER_MAX_BYTES: u64 = 128 * 1024 * 1024;
/// What is no step of plugin code, such as hashing a large library, takes less than this.
const BETWEEN_STEPS: Duration = Duration::from_secs(60);
/// After its last line the child has this long to exit.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// What came of describing.
#[derive(Debug, Default)]
pub(crate) struct Described {
    pub(crate) descriptions: BTreeMap<String, Description>,
    /// What vetted libraries declare, by name, as they wrote it.
    pub(crate) declared: BTreeMap<String, String>,
    pub(crate) refused: Vec<Refusal>,
    /// What went wrong and is no plugin's fault.
    pub(crate) unexpected: Option<String>,
}

/// How one child's work ended.
enum Ending {
    Done(Box<Described>),
    Hung(Step),
    Died(Step, Death),
}

/// Describes the libraries of the settings' own part of the plugin set.
pub(crate) async fn describe(settings: &Settings) -> Described {
    let wanted = settings
        .plugins
        .iter()
        .map(|(name, plugin)| Wanted {
            name: name.clone(),
            library: plugin.library.clone(),
            prefix: plugin.prefix.clone(),
            is_previous: settings.part.generation > 0,
        })
        .collect();
    describe_these(wanted, settings).await
}

/// Describes the plugins that are wanted, loaded and trusted as the settings say.
pub(crate) async fn describe_these(plugins: Vec<Wanted>, settings: &Settings) -> Described {
    let Settings { loading, trust, .. } = settings;
    let limit = Duration::from_millis(loading.timeout_ms);
    let (cache_dir, trust) = (loading.cache_dir.clone(), trust.clone());
    describe_all(Request { plugins, vetted: Vec::new(), cache_dir, trust }, limit).await
}

/// Lets libraries that were vetted say what they declare, each for itself, within `limit` a step.
pub(crate) async fn declare(vetted: Vec<Vetted>, limit: Duration) -> Described {
    let trust = crate::config::Trust::default();
    describe_all(Request { plugins: Vec::new(), vetted, cache_dir: None, trust }, limit).await
}

async fn describe_all(mut request: Request, limit: Duration) -> Described {
    let mut culprits = Vec::new();
    let mut declared = BTreeMap::new();
    loop {
        let serves = !request.vetted.is_empty();
        let ending = one_child(&request, limit, &mut declared).await;
        // They have said it, whatever became of the others.
        request.vetted.retain(|one| !declared.contains_key(one.name()));
        let (step, code, fault, remedy) = match ending {
            Ok(Ending::Done(mut described)) => {
                described.refused.append(&mut culprits);
                described.declared = declared;
                return *described;
            }
            // A host that is to serve tells it as it tells what happens in its own child.
            Ok(Ending::Hung(step)) if serves => {
                let (code, fault, remedy) = culprit::fault(&step.step, &Death::Killed("hung"), limit);
                (step, code, fault, remedy)
            }
            Ok(Ending::Died(step, death)) if serves => {
                let (code, fault, remedy) = culprit::fault(&step.step, &death, limit);
                (step, code, fault, remedy)
            }
            Ok(Ending::Hung(step)) => {
                let fault =
                    format!("hangs in `{}`: it did not return within {} ms", step.step, limit.as_millis());
                (step, Code::Hung, fault, "make it faster or raise `loading.timeout_ms`")
            }
            Ok(Ending::Died(step, Death::Exited(code))) => {
                let fault = format!("calls exit({code}) in `{}`", step.step);
                (step, Code::Died, fault, "a plugin must return an error instead of ending the process")
            }
            Ok(Ending::Died(step, death)) => {
                let fault = format!("crashes in `{}`: the process {death}", step.step);
                (step, Code::Died, fault, "mend the plugin; its last words may stand above")
            }
            Err(fault) => {
                return Described {
                    refused: culprits,
                    declared,
                    unexpected: Some(fault),
                    ..Described::default()
                };
            }
        };
        let Some(file) = request.remove(&step.plugin) else {
            let fault = format!("a plugin `{}` that nobody asked for: a fault of cardcage", step.plugin);
            return Described {
                refused: culprits,
                declared,
                unexpected: Some(fault),
                ..Described::default()
            };
        };
        culprits.push(Refusal::new(&file, code, fault, remedy).of(&step.plugin));
    }
}

/// Asks one child for all of it. The error is a sentence about what is no plugin's fault.
async fn one_child(
    request: &Request,
    limit: Duration,
    declared: &mut BTreeMap<String, String>,
) -> Result<Ending, String> {
    let cannot = |error: std::io::Error| format!("the plugins cannot be described ({error}): try again");
    let mut child = Command::new(SelfExecutable::path())
        .arg("describe-child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        // A signal to the asker's group must not look like a plugin's death; the end of stdin ends the child.
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    // Open until the end of this function: its end tells the child that nobody listens any more.
    let mut stdin = child.stdin.take();
    let Some(stdout) = child.stdout.take() else {
        return Err("the child has no stdout: a fault of cardcage".into());
    };
    let mut line = serde_json::to_vec(request).map_err(|error| cannot(error.into()))?;
    line.push(b'\n');
    if let Some(stdin) = &mut stdin {
        // A child that died before it read says so by its end.
        let _ = stdin.write_all(&line).await;
    }
    let mut lines = BufReader::new(stdout.take(ANSWER_MAX_BYTES)).lines();
    listen(&mut child, &mut lines, limit, declared).await
}

async fn listen(
    child: &mut Child,
    lines: &mut Lines<BufReader<Take<ChildStdout>>>,
    limit: Duration,
    declared: &mut BTreeMap<String, String>,
) -> Result<Ending, String> {
    let mut at: Option<Step> = None;
    loop {
        let patience = if at.is_some() { limit } else { BETWEEN_STEPS };
        let line = match timeout(patience, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None) | Err(_)) => return died(child, at).await,
            Err(_) => {
                kill(child).await;
                return at
                    .map(Ending::Hung)
                    .ok_or_else(|| "reading the libraries takes too long: try again".into());
            }
        };
        match serde_json::from_str(&line) {
            Ok(Report::Step(step)) => at = step,
            Ok(Report::Declared { plugin, json }) => {
                declared.insert(plugin, json);
            }
            Ok(Report::Done { described, refused }) => {
                end(child).await;
                return Ok(Ending::Done(Box::new(Described {
                    descriptions: described.into_iter().map(|one| (one.name.clone(), one)).collect(),
                    refused: refused.into_iter().map(Refusal::from).collect(),
                    ..Described::default()
                })));
            }
            Err(error) => {
                kill(child).await;
                return Err(format!("the describing process wrote nonsense ({error})"));
            }
        }
    }
}

async fn died(child: &mut Child, at: Option<Step>) -> Result<Ending, String> {
    let how = match end(child).await {
        Some(status) => Death::of(status),
        None => Death::Signalled("an unknown cause".to_owned()),
    };
    at.map(|step| Ending::Died(step, how.clone())).ok_or_else(|| format!("the describing process {how}"))
}

/// Waits for the child's end, and brings it about if it does not come.
async fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(Ok(status)) = timeout(EXIT_WAIT, child.wait()).await {
        return Some(status);
    }
    kill(child).await
}

async fn kill(child: &mut Child) -> Option<ExitStatus> {
    // It fails only for one that has ended.
    let _ = child.start_kill();
    child.wait().await.ok()
}
