//! `cardcage plugin sign` and `cardcage plugin keygen`: signatures in minisign's format, which its own tool makes and
//! verifies as well.
//!
//! Invariants: a secret key is written once, for its owner's eyes only, and never over another file; a signature is
//! verified with the public key before it is written; no password is in an argument, where other processes would see it;
//! what is read is a regular file, and no more of it than fits.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use serde_json::json;

use super::output;
use crate::cli::{KeygenArgs, SignArgs};
use crate::exit::Exit;
use crate::loader::inspect::{self, LIBRARY_MAX_BYTES};
use crate::regular_file;
use crate::signature::{self, Signature, TrustedKey};

/// Keys and passwords are a few lines.
const SECRET_MAX_BYTES: u64 = 64 * 1024;

/// Why it was not done: a sentence.
type Sentence = String;

/// Signs a file.
#[must_use]
pub fn sign(args: &SignArgs) -> Exit {
    match signed(args) {
        Ok((file, key)) => {
            if args.json {
                output::json(&json!({ "file": args.file, "signature": file, "key": key.id() }));
            } else {
                output::result(&output::shown(&format!(
                    "{} is signed with the key {}",
                    args.file.display(),
                    key.id()
                )));
            }
            Exit::Success
        }
        Err(sentence) => failed(&sentence),
    }
}

fn failed(sentence: &str) -> Exit {
    output::trouble(&output::shown(sentence));
    Exit::Unexpected
}

fn signed(args: &SignArgs) -> Result<(PathBuf, TrustedKey), Sentence> {
    let shown = args.file.display();
    let bytes = regular_file::bytes(&args.file, LIBRARY_MAX_BYTES)
        .map_err(|error| format!("{shown}: cannot be read ({error}); check the path"))?;
    let secret = secret_key(&args.key, args.password_file.as_deref())?;
    let public = PublicKey::from_secret_key(&secret).map_err(|error| unfit(&args.key, &error.to_string()))?;
    let trusted: TrustedKey = public.to_base64().parse().map_err(|error| unfit(&args.key, error))?;
    let comment = args.comment.clone().unwrap_or_else(|| comment(&args.file, &bytes));
    if comment.contains(['\n', '\r']) {
        return Err("the comment has more than one line; write it in one".to_owned());
    }
    let note = format!("signature by the key {}", trusted.id());
    let made = minisign::sign(Some(&public), &secret, bytes.as_slice(), Some(&comment), Some(&note))
        .map_err(|error| format!("{shown}: cannot be signed ({error})"))?
        .to_string();
    // By the very code that hosts verify with.
    let verified =
        Signature::parse(&made).and_then(|made| made.verify(&bytes, std::slice::from_ref(&trusted)));
    verified.map_err(|fault| {
        format!("{shown}: the signature does not verify ({fault:?}): a fault of cardcage")
    })?;
    let file = signature::path_of(&args.file);
    std::fs::write(&file, made)
        .map_err(|error| format!("{}: cannot be written ({error}); check the folder", file.display()))?;
    Ok((file, trusted))
}

/// When, which file, and what it is.
fn comment(file: &Path, bytes: &[u8]) -> String {
    let seconds = cardcage_protocol::Timestamp::now().unix_ms() / 1_000;
    let name = file.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, " ");
    let plugin = inspect::bytes_of(file, bytes).map_or_else(
        |_| String::new(),
        |it| format!("\tplugin:{} {}", it.manifest.name, it.manifest.version.replace(char::is_control, " ")),
    );
    format!("timestamp:{seconds}\tfile:{name}{plugin}\tsha256:{}", inspect::sha256(bytes))
}

fn unfit(file: &Path, why: &str) -> Sentence {
    format!(
        "{}: is no secret key that can be used ({why}); `cardcage plugin keygen` makes one",
        file.display()
    )
}

fn secret_key(file: &Path, password_file: Option<&Path>) -> Result<SecretKey, Sentence> {
    let text = regular_file::text(file, SECRET_MAX_BYTES)
        .map_err(|error| format!("{}: the key cannot be read ({error}); check the path", file.display()))?;
    if text.lines().any(|line| line.parse::<TrustedKey>().is_ok()) {
        return Err(format!(
            "{}: is a public key, and the secret one signs; name that one with --key",
            file.display()
        ));
    }
    let key = || SecretKeyBox::from_string(&text).map_err(|error| unfit(file, &error.to_string()));
    // Whether it has a password is told in no other way than by this error's text.
    match key()?.into_unencrypted_secret_key() {
        Ok(secret) => return Ok(secret),
        Err(error) if error.to_string().contains("encrypted") => {}
        Err(error) => return Err(unfit(file, &error.to_string())),
    }
    let password = password(password_file, "Password of the key: ")?;
    key()?
        .into_secret_key(Some(password))
        .map_err(|error| format!("{}: the key does not open ({error}); check the password", file.display()))
}

fn password(file: Option<&Path>, prompt: &str) -> Result<String, Sentence> {
    if let Some(file) = file {
        let text = regular_file::text(file, SECRET_MAX_BYTES).map_err(|error| {
            format!("{}: the password cannot be read ({error}); check the path", file.display())
        })?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            "the key needs a password, and nobody is there to ask; give it with --password-file".to_owned()
        );
    }
    rpassword::prompt_password(prompt).map_err(|error| format!("no password was read ({error}); try again"))
}

/// Makes a pair of keys.
#[must_use]
pub fn keygen(args: &KeygenArgs) -> Exit {
    match generated(args) {
        Ok(key) => {
            let (id, text) = (key.id(), String::from(key));
            if args.json {
                output::json(
                    &json!({ "key": id, "public_key": text, "secret_key_file": args.key, "public_key_file": public_file(&args.key) }),
                );
            } else {
                output::result(&format!(
                    "The key {id}: {} is secret, {} is not.\nWho trusts it writes in the configuration:\n\n  \
                     [plugins]\n  trusted_keys = [\"{text}\"]",
                    args.key.display(),
                    public_file(&args.key).display(),
                ));
            }
            Exit::Success
        }
        Err(sentence) => failed(&sentence),
    }
}

fn public_file(secret: &Path) -> PathBuf {
    let mut file = secret.as_os_str().to_owned();
    file.push(".pub");
    file.into()
}

fn generated(args: &KeygenArgs) -> Result<TrustedKey, Sentence> {
    let broken = |error: &dyn std::fmt::Display| format!("no key can be made ({error})");
    let pair = if args.no_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        let first = password(args.password_file.as_deref(), "Password for the new key: ")?;
        if first.is_empty() {
            return Err("the password is empty; give one, or say --no-password".to_owned());
        }
        if args.password_file.is_none() && password(None, "The same once more: ")? != first {
            return Err("the two passwords differ; try again".to_owned());
        }
        KeyPair::generate_encrypted_keypair(Some(first))
    };
    let pair = pair.map_err(|error| broken(&error))?;
    let trusted: TrustedKey = pair.pk.to_base64().parse().map_err(|error| broken(&error))?;
    let secret = pair.sk.to_box(None).map_err(|error| broken(&error))?;
    let public = pair.pk.to_box().map_err(|error| broken(&error))?;
    create(&args.key, 0o600, &secret.to_string())?;
    create(&public_file(&args.key), 0o644, &public.to_string()).inspect_err(|_| {
        // Half a pair is in the way of the next try. It was written just now, and nobody has signed with it.
        let _ = std::fs::remove_file(&args.key);
    })?;
    Ok(trusted)
}

fn create(file: &Path, mode: u32, text: &str) -> Result<(), Sentence> {
    let write = || {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        new.write_all(text.as_bytes())
    };
    write().map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AlreadyExists => "name a file that does not exist yet",
            ErrorKind::NotFound => "make its folder first",
            _ => "check its folder and the permissions there",
        };
        format!("{}: cannot be written ({error}); {remedy}", file.display())
    })
}
